# SPDX-License-Identifier: Apache-2.0
"""Bodies are PartialObjectMetadata with managedFields as kube-apiserver writes them."""

from typing import Any

import pytest

from strongroom.model import secretfacts
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.labels import KMS_API_VERSION
from tests.unit.fakes import encrypted_secret

Entry = dict[str, Any]


def wanted(**changes: Any) -> EncryptedSecret:
    template = {"metadata": {"labels": {"app": "db"}, "annotations": {"note": "ours"}}}
    return encrypted_secret(**({"encryptedData": {"password": "", "tls.crt": ""}, "template": template} | changes))


def names(*keys: str) -> Entry:
    """A FieldsV1 set of map keys; the dot stands for the map itself."""
    return {".": {}} | {f"f:{key}": {} for key in keys}


def entry(manager: str, *, operation: str = "Update", **fields: Entry) -> Entry:
    return {
        "manager": manager,
        "operation": operation,
        "apiVersion": "v1",
        "time": "2026-11-23T10:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {f"f:{field}": value for field, value in fields.items()},
    }


APPLIED = "strongroom.dev/applied-spec"
OURS = ("app", "strongroom.dev/managed", "app.kubernetes.io/managed-by")


def own(*data: str, labels: tuple[str, ...] = OURS, operation: str = "Update", **fields: Entry) -> Entry:
    """What a POST by strongroom leaves."""
    metadata = {
        "f:annotations": names("note", APPLIED),
        "f:labels": names(*labels),
        "f:ownerReferences": {".": {}, 'k:{"uid":"uid-of-db"}': {}},
    }
    return entry("strongroom", operation=operation, data=names(*data), metadata=metadata, type={}, **fields)


def owner(**changes: Any) -> Entry:
    usual = {
        "apiVersion": KMS_API_VERSION,
        "kind": "EncryptedSecret",
        "name": "db",
        "uid": "uid-of-db",
        "controller": True,
    }
    return usual | changes


def facts(*entries: Entry, owners: list[Entry] | None = None, **metadata: Any) -> secretfacts.SecretFacts:
    usual = {
        "namespace": "shop",
        "name": "db",
        "uid": "secret-uid",
        "resourceVersion": "77",
        "labels": {"app": "db", "strongroom.dev/managed": "true", "app.kubernetes.io/managed-by": "strongroom"},
        "annotations": wanted().annotations,
        "ownerReferences": [owner()] if owners is None else owners,
        "managedFields": list(entries),
    }
    return secretfacts.parse({"metadata": usual | metadata})


LABELS = {"app": "db", "strongroom.dev/managed": "true", "app.kubernetes.io/managed-by": "strongroom"}
FOREIGN_OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "foreign"}
GC = entry("kube-controller-manager", metadata={"f:ownerReferences": {'k:{"uid":"foreign"}': {}}})


@pytest.mark.parametrize(
    ("found", "in_sync"),
    [
        pytest.param(facts(own("password", "tls.crt")), True, id="as-posted"),
        pytest.param(
            facts(own("password"), entry("kubectl-edit", data={"f:tls.crt": {}})),
            False,
            id="kubectl-edit-changed-a-value",
        ),
        pytest.param(
            facts(own("password", "tls.crt"), entry("kubectl-patch", data={"f:extra": {}})), False, id="key-added"
        ),
        pytest.param(facts(own("password")), False, id="key-removed"),
        pytest.param(
            facts(entry("strongroom", type={}), entry("kubectl-replace", data=names("password", "tls.crt"))),
            False,
            id="every-value-replaced",
        ),
        pytest.param(facts(entry("strongroom", type={})), False, id="data-removed-as-a-whole"),
        pytest.param(
            facts(
                own("password", "tls.crt"),
                entry("kubectl-label", metadata={"f:labels": {"f:team": {}}}),
                labels=LABELS | {"team": "payments"},
            ),
            True,
            id="label-added-by-another-tool",
        ),
        pytest.param(
            facts(
                own("password", "tls.crt"),
                entry("reloader", metadata={"f:annotations": {"f:seen": {}}}),
                annotations=wanted().annotations | {"seen": "1"},
            ),
            True,
            id="annotation-added-by-another-tool",
        ),
        pytest.param(
            facts(
                own("password", "tls.crt", labels=OURS[1:]),
                entry("kubectl-label", metadata={"f:labels": {"f:app": {}}}),
                labels=LABELS | {"app": "changed"},
            ),
            False,
            id="our-label-changed",
        ),
        pytest.param(
            facts(own("password", "tls.crt"), labels={k: v for k, v in LABELS.items() if k != "app"}),
            False,
            id="our-label-removed",
        ),
        pytest.param(facts(own("password", "tls.crt"), annotations={}), False, id="our-annotation-removed"),
        pytest.param(
            facts(own("password", "tls.crt", labels=(*OURS, "old")), labels=LABELS | {"old": "x"}),
            False,
            id="label-of-ours-that-left-the-template",
        ),
        pytest.param(
            facts(
                own("password", "tls.crt"),
                entry("argocd", operation="Apply", data={"f:password": {}}),
            ),
            True,
            id="server-side-apply-shares-the-same-value",
        ),
        pytest.param(
            facts(
                own("tls.crt"),
                entry("argocd", operation="Apply", data={"f:password": {}}),
            ),
            False,
            id="server-side-apply-took-a-value-by-force",
        ),
        pytest.param(
            facts(own("password", "tls.crt"), own("password", operation="Apply")), True, id="two-entries-of-ours"
        ),
        pytest.param(
            facts(own("password"), own("tls.crt", operation="Apply")), True, id="our-keys-spread-over-two-entries"
        ),
        pytest.param(
            facts(entry("velero-server", data=names("password", "tls.crt"), type={})),
            False,
            id="restored-from-a-backup",
        ),
        pytest.param(
            facts(entry("velero-server", data=names("password", "tls.crt"), type={}), owners=[owner(uid="former")]),
            False,
            id="restored-with-its-former-owner",
        ),
        pytest.param(
            facts(own("password", "tls.crt"), GC, owners=[FOREIGN_OWNER, owner()]), True, id="foreign-owner-prepended"
        ),
        pytest.param(facts(own("password", "tls.crt"), owners=[]), False, id="owner-removed"),
        pytest.param(facts(own("password", "tls.crt"), owners=[owner(controller=False)]), False, id="no-controller"),
        pytest.param(facts(own("password", "tls.crt"), owners=[owner(uid="other")]), False, id="other-incarnation"),
        pytest.param(facts(own("password", "tls.crt"), managedFields=None), False, id="managed-fields-cleared"),
        pytest.param(facts(own("password", "tls.crt"), managedFields=[{}]), False, id="managed-fields-reset"),
        pytest.param(facts(entry("strongroom") | {"fieldsV1": None}), False, id="fields-null"),
        pytest.param(
            facts(entry("strongroom", data=names("password", "tls.crt")), entry("kubectl-replace", type={})),
            False,
            id="made-anew-with-another-type",
        ),
        pytest.param(
            facts(own("password", "tls.crt") | {"manager": "strongroom-backup"}), False, id="manager-that-starts-alike"
        ),
    ],
)
def test_drift_is_told_from_metadata_alone(found: secretfacts.SecretFacts, in_sync: bool) -> None:
    assert found.in_sync_with(wanted()) is in_sync


def test_a_secret_without_values_is_in_sync_when_nobody_owns_any() -> None:
    empty = wanted(encryptedData={})
    assert facts(own(), annotations=empty.annotations).in_sync_with(empty)
    edited = entry("kubectl-edit", data=names("x"))
    assert not facts(own(), edited, annotations=empty.annotations).in_sync_with(empty)


def test_values_of_another_spec_are_not_in_sync_though_they_are_ours() -> None:
    other = wanted(keyRef={"name": "another"})
    assert other.spec_digest != wanted().spec_digest
    assert not facts(own("password", "tls.crt"), annotations=other.annotations).in_sync_with(wanted())


@pytest.mark.parametrize(
    ("owners", "ours", "predecessors"),
    [
        pytest.param([owner()], True, False, id="this-object"),
        pytest.param([owner(uid="former")], False, True, id="same-name-other-uid"),
        pytest.param([owner(uid="former", apiVersion="kms.strongroom.dev/v1")], False, True, id="other-api-version"),
        pytest.param([owner(uid="former", name="cache")], False, False, id="other-name"),
        pytest.param([owner(uid="former", kind="CustomerMasterKey")], False, False, id="other-kind"),
        pytest.param([owner(uid="former", apiVersion="bitnami.com/v1")], False, False, id="other-group"),
        pytest.param(
            [owner(uid="former", apiVersion="kms.strongroom.dev.evil/v1")], False, False, id="group-that-starts-alike"
        ),
        pytest.param([owner(uid="former", controller=False)], False, False, id="not-the-controller"),
        pytest.param([FOREIGN_OWNER], False, False, id="foreign"),
        pytest.param([{"controller": True}], False, False, id="controller-without-fields"),
        pytest.param([], False, False, id="nobody"),
    ],
)
def test_whose_it_is_follows_from_the_controlling_owner(owners: list[Entry], ours: bool, predecessors: bool) -> None:
    found = facts(own("password"), owners=owners)
    assert (found.owned_by(wanted()), found.owned_by_predecessor(wanted())) == (ours, predecessors)


@pytest.mark.parametrize(
    ("annotations", "owners", "wants"),
    [
        ({"strongroom.dev/adopt": "true"}, [], True),
        ({"strongroom.dev/adopt": "true"}, [FOREIGN_OWNER], True),
        ({"strongroom.dev/adopt": "true"}, [FOREIGN_OWNER | {"controller": True}], False),
        ({"strongroom.dev/adopt": "yes"}, [], False),
        ({"strongroom.dev/adopt": ""}, [], False),
        (None, [], False),
    ],
    ids=["asked", "asked-with-an-owner", "controlled-by-another", "other-word", "empty-word", "not-asked"],
)
def test_adoption_is_asked_for_by_annotation_and_only_without_a_controller(
    annotations: dict[str, str] | None, owners: list[Entry], wants: bool
) -> None:
    assert facts(owners=owners, annotations=annotations).wants_adoption is wants


def test_the_rest_of_the_metadata_is_read() -> None:
    found = facts(own("password"), finalizers=["example.com/keep"])
    assert (found.resource_version, found.finalizers) == (77, ("example.com/keep",))
    assert (str(found.key), found.uid) == ("shop/db", "secret-uid")


@pytest.mark.parametrize("finalizers", [None, []])
def test_no_finalizers_are_none(finalizers: list[str] | None) -> None:
    assert facts(own("password"), finalizers=finalizers).finalizers == ()


def test_what_kubectl_applied_is_not_kept_because_it_holds_values_in_plain() -> None:
    last_applied = {"kubectl.kubernetes.io/last-applied-configuration": '{"stringData":{"password":"canary"}}'}
    found = facts(own("password"), annotations=last_applied | {"note": "theirs"})
    assert found.annotations == {"note": "theirs"}
    assert "canary" not in repr(found)


def test_ownership_claimed_outright_is_what_a_post_leaves() -> None:
    secret = wanted()
    claimed, posted = facts(secretfacts.whole_ownership(secret)), facts(own("password", "tls.crt"))
    assert claimed == posted
    assert claimed.in_sync_with(secret)
    assert (
        f'k:{{"uid":"{secret.uid}"}}'
        in secretfacts.whole_ownership(secret)["fieldsV1"]["f:metadata"]["f:ownerReferences"]
    )
