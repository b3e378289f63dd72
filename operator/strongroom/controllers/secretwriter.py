# SPDX-License-Identifier: Apache-2.0
"""Writes Secrets: creates ours, changes ours, and never touches a foreign one.

A create comes first; if the name is taken, whose it is decides. A change replaces the whole object under its uid and
resourceVersion, so it hits exactly the Secret that was looked at, and keys that left the spec leave the Secret. It is
never a patch: the API server's answer to a malformed patch quotes the stored object, so the permission to patch is one
to read every Secret, and the operator does not hold it. Only metadata is ever asked back.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Final

from strongroom.errors import Reason, StrongroomError
from strongroom.kube import paths
from strongroom.kube.client import METADATA_LIST_ONLY, METADATA_ONLY, ApiError, JsonObject, KubeClient
from strongroom.model import secretfacts
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import ADOPT_ANNOTATION, OPERATOR_POLICY
from strongroom.model.plaintext import Plaintext
from strongroom.model.secretfacts import SecretFacts

_ATTEMPTS: Final = 4
"""Looks at a Secret that others change at the same moment before giving up until the next try."""
_FIXED_FIELDS: Final = frozenset({"type", "data", "immutable"})
"""Fields that the API server names when a Secret's type, or anything in an immutable Secret, is to change."""
_PROBE_NAME: Final = "strongroom-policy-probe"


class TargetGone(Exception):
    """The namespace is going away: nothing is to be written any more."""


class SecretWriter:
    """Raises StrongroomError with the reason for the condition, ApiError if it is transient, TargetGone.

    `watching`: Secrets may be listed and watched. Without that permission nothing can be looked at, and the admission
    policy for the operator's own writes keeps foreign Secrets safe; it is proven to be in force before each change.
    """

    def __init__(self, kube: KubeClient, *, watching: bool, on_write: Callable[[str], None]) -> None:
        self._kube = kube
        self._watching = watching
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
                if error.status == 409 and not self._watching:
                    return await self._change_unseen(secret, encoded)
                if error.status == 409:  # the name is taken, or the Secret is not as it was
                    known = await self.look(secret.key)
                elif error.status == 404 and known is not None:
                    known = None  # deleted meanwhile
                else:
                    raise _explained(error, secret.key) from error
        raise ApiError(409, "Conflict")

    async def look(self, key: ObjectKey) -> SecretFacts | None:
        """The Secret's metadata, whoever's it is; None if there is none. Only where Secrets are watched."""
        try:
            answer = await self._kube.get(
                paths.secrets(key.namespace),
                accept=METADATA_LIST_ONLY,
                params={"fieldSelector": f"metadata.name={key.name}"},
            )
        except ApiError as error:
            raise _explained(error, key) from error
        return next((secretfacts.parse(item) for item in answer.get("items") or ()), None)

    async def _create(self, secret: EncryptedSecret, encoded: Mapping[str, str]) -> SecretFacts:
        body = _manifest(secret, encoded)
        answer = await self._kube.create(paths.secrets(secret.key.namespace), body, accept=METADATA_ONLY)
        self._on_write("create")
        return secretfacts.parse(answer)

    async def _change(self, secret: EncryptedSecret, encoded: Mapping[str, str], known: SecretFacts) -> SecretFacts:
        require_ownable(secret, known)
        body = _manifest(secret, encoded, known)
        facts = await self._replace(secret, body)
        self._on_write("update")
        if facts.in_sync_with(secret):
            return facts
        # The values were right already but the fields belong to someone else, as after a restore from a backup. A
        # write that changes no value gains no ownership, so it is claimed outright.
        body["metadata"] |= {
            "resourceVersion": str(facts.resource_version),
            "managedFields": [secretfacts.whole_ownership(secret)],
        }
        facts = await self._replace(secret, body)
        self._on_write("claim")
        return facts

    async def _change_unseen(self, secret: EncryptedSecret, encoded: Mapping[str, str]) -> SecretFacts:
        """Replace what cannot be looked at. The admission policy refuses if it is foreign; what others put on the
        Secret's metadata is lost."""
        try:
            await self._require_policy(secret.key.namespace)
        except ApiError as error:
            raise _explained(error, secret.key) from error
        try:
            facts = await self._replace(secret, _manifest(secret, encoded))
        except ApiError as error:
            if error.status == 404:  # the conflict was another one, or the Secret is gone meanwhile: try again
                raise ApiError(409, "Conflict") from error
            raise _explained(error, secret.key) from error
        self._on_write("update")
        return facts

    async def _require_policy(self, namespace: str) -> None:
        """Return if the admission policy refuses a Secret that nobody controls, tried without making it."""
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _PROBE_NAME}}
        try:
            await self._kube.create(paths.secrets(namespace), body, accept=METADATA_ONLY, dry_run=True)
        except ApiError as error:
            if error.by_policy:
                return
            raise
        raise StrongroomError(
            Reason.OPERATOR_FORBIDDEN,
            f"Secrets are not watched, and the admission policy {OPERATOR_POLICY} is not in force: an "
            "existing Secret is not changed, because nothing would keep a foreign one safe",
            hint="Install the chart with admissionPolicy.restrictOperator, or with secrets.driftWatch",
        )

    async def _replace(self, secret: EncryptedSecret, body: JsonObject) -> SecretFacts:
        return secretfacts.parse(await self._kube.replace(paths.secret(secret.key), body, accept=METADATA_ONLY))


def require_ownable(secret: EncryptedSecret, known: SecretFacts) -> None:
    """Return if the Secret is ours, our predecessor's, or offered for adoption; else raise TargetNotOwned."""
    if not (known.owned_by(secret) or known.owned_by_predecessor(secret) or known.wants_adoption):
        raise _not_owned(secret.key)


def _manifest(secret: EncryptedSecret, encoded: Mapping[str, str], known: SecretFacts | None = None) -> JsonObject:
    """The whole Secret. Over a `known` one it keeps what others put there; its uid and version are preconditions, so
    nobody's change in between is lost."""
    metadata: JsonObject = {
        "name": secret.key.name,
        "namespace": secret.key.namespace,
        "labels": secret.labels,
        "annotations": secret.annotations,
        "ownerReferences": [secret.owner_reference],
    }
    if known is not None:
        metadata["uid"] = known.uid
        metadata["resourceVersion"] = str(known.resource_version)
        metadata["labels"] = _without(known.labels, known.own_labels) | metadata["labels"]
        metadata["annotations"] = (
            _without(known.annotations, known.own_annotations | {ADOPT_ANNOTATION}) | metadata["annotations"]
        )
        metadata["ownerReferences"] += [owner for owner in known.owners if not owner.get("controller")]
        metadata["finalizers"] = list(known.finalizers)
    body: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": secret.template.type,
        "data": dict(encoded),
    }
    if secret.template.immutable:
        body["immutable"] = True
    return body


def _without(items: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    return {key: value for key, value in items.items() if key not in names}


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
