# SPDX-License-Identifier: Apache-2.0
"""Writes Secrets: creates ours, changes ours, and never touches a foreign one.

A create comes first; if the name is taken, whose it is decides. A change is a JSON Patch that tests uid and
resourceVersion, so it hits exactly the Secret that was looked at, and that replaces `data` as a whole, so keys that
left the spec leave the Secret. Only metadata is ever asked back.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final

from strongroom.errors import Reason, StrongroomError
from strongroom.kube import paths
from strongroom.kube.client import METADATA_ONLY, ApiError, KubeClient, PatchType
from strongroom.model import secretfacts
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import ADOPT_ANNOTATION
from strongroom.model.plaintext import Plaintext
from strongroom.model.secretfacts import SecretFacts

_ATTEMPTS: Final = 4
"""Looks at a Secret that others change at the same moment before giving up until the next try."""
_FIXED_FIELDS: Final = frozenset({"type", "data", "immutable"})
"""Fields that the API server names when a Secret's type, or anything in an immutable Secret, is to change."""


class TargetGone(Exception):
    """The namespace is going away: nothing is to be written any more."""


class SecretWriter:
    """Raises StrongroomError with the reason for the condition, ApiError if it is transient, TargetGone."""

    def __init__(self, kube: KubeClient, *, on_write: Callable[[str], None]) -> None:
        self._kube = kube
        self._on_write = on_write

    async def write(
        self, secret: EncryptedSecret, data: Mapping[str, Plaintext], known: SecretFacts | None
    ) -> SecretFacts:
        """Make the Secret as `secret` wants it; `known` is what we believe stands there. Its facts afterwards."""
        encoded = {key: base64.b64encode(value.reveal()).decode() for key, value in data.items()}
        for _ in range(_ATTEMPTS):
            try:
                if known is None:
                    return await self._create(secret, encoded)
                return await self._change(secret, encoded, known)
            except ApiError as error:
                if _is_stale(error):
                    known = await self.look(secret.key)
                elif error.status == 404 and known is not None:
                    known = None  # deleted meanwhile
                else:
                    raise _explained(error, secret.key) from error
        raise ApiError(409, "Conflict")

    async def look(self, key: ObjectKey) -> SecretFacts | None:
        """The Secret's metadata, or None if there is none.

        Asked by a patch that changes nothing: the operator holds no permission to read Secrets, and the admission
        policy lets it patch only those it may own. Raises StrongroomError (TargetNotOwned) where that policy refuses.
        """
        try:
            answer = await self._kube.patch(paths.secret(key), PatchType.MERGE, {}, accept=METADATA_ONLY)
        except ApiError as error:
            if error.status == 404:
                return None
            if error.by_policy:
                raise _not_owned(key) from error
            raise _explained(error, key) from error
        return secretfacts.parse(answer)

    async def _create(self, secret: EncryptedSecret, encoded: Mapping[str, str]) -> SecretFacts:
        body = _manifest(secret, encoded)
        answer = await self._kube.create(paths.secrets(secret.key.namespace), body, accept=METADATA_ONLY)
        self._on_write("create")
        return secretfacts.parse(answer)

    async def _change(self, secret: EncryptedSecret, encoded: Mapping[str, str], known: SecretFacts) -> SecretFacts:
        require_ownable(secret, known)
        operations = _patch(secret, encoded, known)
        path = paths.secret(secret.key)
        facts = secretfacts.parse(await self._kube.patch(path, PatchType.JSON, operations, accept=METADATA_ONLY))
        self._on_write("update")
        if facts.in_sync_with(secret):
            return facts
        # The values were right already but the fields belong to someone else, as after a restore from a backup:
        # a patch that changes no value gains no ownership, an apply does.
        body = _manifest(secret, encoded)
        body["metadata"] |= {"uid": facts.uid, "resourceVersion": str(facts.resource_version)}
        answer = await self._kube.patch(path, PatchType.APPLY, body, accept=METADATA_ONLY)
        self._on_write("claim")
        return secretfacts.parse(answer)


def require_ownable(secret: EncryptedSecret, known: SecretFacts) -> None:
    """Return if the Secret is ours, our predecessor's, or offered for adoption; else raise TargetNotOwned."""
    if not (known.owned_by(secret) or known.owned_by_predecessor(secret) or known.wants_adoption):
        raise _not_owned(secret.key)


def _manifest(secret: EncryptedSecret, encoded: Mapping[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": secret.key.name,
        "namespace": secret.key.namespace,
        "labels": secret.labels,
        "ownerReferences": [secret.owner_reference],
    }
    if secret.template.annotations:
        metadata["annotations"] = dict(secret.template.annotations)
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": secret.template.type,
        "data": dict(encoded),
    }
    if secret.template.immutable:
        body["immutable"] = True
    return body


def _patch(secret: EncryptedSecret, encoded: Mapping[str, str], known: SecretFacts) -> list[dict[str, Any]]:
    """Whole maps can be set because resourceVersion is tested: nobody's change in between is lost."""
    labels = {key: value for key, value in known.labels.items() if key not in known.own_labels} | secret.labels
    annotations = {
        key: value
        for key, value in known.annotations.items()
        if key not in known.own_annotations and key != ADOPT_ANNOTATION
    } | dict(secret.template.annotations)
    others = [owner for owner in known.owners if not owner.get("controller")]
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": known.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": str(known.resource_version)},
        {"op": "add", "path": "/metadata/labels", "value": labels},
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
        {"op": "add", "path": "/metadata/ownerReferences", "value": [secret.owner_reference, *others]},
        {"op": "add", "path": "/type", "value": secret.template.type},
        {"op": "add", "path": "/data", "value": dict(encoded)},
    ]
    if secret.template.immutable or known.owns_immutable:
        operations.append({"op": "add", "path": "/immutable", "value": secret.template.immutable})
    return operations


def _is_stale(error: ApiError) -> bool:
    """The name is taken (409), or a `test` of the patch failed: 422 without a field at fault."""
    return error.status == 409 or (error.status == 422 and not error.fields and not error.by_policy)


def _explained(error: ApiError, key: ObjectKey) -> Exception:
    """The reason for the condition. Of the API server's answer only code, reason and field paths are told."""
    if error.transient:
        return error
    if error.status == 404 or "metadata.namespace" in error.fields:
        return TargetGone()
    if error.by_policy:
        return _not_owned(key)
    if error.by_rbac:
        return StrongroomError(
            Reason.OPERATOR_FORBIDDEN,
            f"the operator may not write Secrets in namespace {key.namespace!r}",
            hint="Check the RBAC that the chart installed",
        )
    if error.status == 422 and _FIXED_FIELDS.intersection(error.fields):
        return StrongroomError(
            Reason.TARGET_IMMUTABLE,
            f"the Secret {key} cannot change its {' and '.join(sorted(_FIXED_FIELDS.intersection(error.fields)))}",
            hint=f"Delete it and it is made anew: kubectl delete secret -n {key.namespace} {key.name}",
        )
    at = f" at {', '.join(error.fields)}" if error.fields else ""
    return StrongroomError(
        Reason.TARGET_REJECTED,
        f"the API server refuses the Secret {key}: {error.status} {error.reason}{at}",
        hint="A quota, an admission policy or the Secret type's own rules say no; its message is withheld because it "
        "can quote values",
    )


def _not_owned(key: ObjectKey) -> StrongroomError:
    return StrongroomError(
        Reason.TARGET_NOT_OWNED,
        f"there is a Secret {key} that no EncryptedSecret of this name controls; it is left untouched",
        hint="Delete it, choose another name, or hand it over: kubectl annotate secret "
        f"-n {key.namespace} {key.name} {ADOPT_ANNOTATION}=true",
    )
