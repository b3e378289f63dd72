# SPDX-License-Identifier: Apache-2.0
"""Reconciles CustomerMasterKeys: creates or adopts their material in the token and publishes it in status.

Each pass reads the object live, looks into the token, takes one planned step (kms/lifecycle.py), and looks again until
there is nothing more to do. A crash between any two steps is healed by the next pass.
"""

import contextlib
import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from strongroom.audit.journal import Journal
from strongroom.audit.record import Entry, EventName
from strongroom.controllers.statuswriter import StatusWriter
from strongroom.controllers.store import Store
from strongroom.controllers.workqueue import WorkQueue
from strongroom.errors import Healing, Reason, StrongroomError
from strongroom.events import EventRecorder, EventType
from strongroom.hsm.api import KeyLabel, KeyMaterial, Token
from strongroom.kms import lifecycle, pem
from strongroom.kms.lifecycle import Generate, Publish, RecordIntent, Refuse
from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient
from strongroom.metrics import Metrics
from strongroom.model import conditions, masterkey
from strongroom.model.algorithms import Algorithm
from strongroom.model.conditions import Condition
from strongroom.model.ids import KeyId, KeyVersionRef, ObjectKey
from strongroom.model.keys import KeySpec, KeyState, VersionState
from strongroom.model.labels import KMS_API_VERSION, MASTER_KEY_KIND
from strongroom.model.masterkey import MasterKey
from strongroom.model.principal import ObjectReference

_log = logging.getLogger(__name__)

_MAX_STEPS: Final = 5
"""Intent, generation, publication, and a look between them; more means that something else writes too."""
_SLOW_RETRY_SECONDS: Final = 300.0


class MasterKeyReconciler:
    """Belongs to one event loop. `certifications` are the administrator's claims by token name; `principal`
    is the operator's own user name, `instance` this process's."""

    def __init__(
        self,
        *,
        kube: KubeClient,
        tokens: Mapping[str, Token],
        certifications: Mapping[str, str],
        cluster: str,
        instance: str,
        principal: str,
        journal: Journal,
        recorder: EventRecorder,
        metrics: Metrics,
    ) -> None:
        self._kube = kube
        self._tokens = tokens
        self._certifications = certifications
        self._cluster = cluster
        self._instance = instance
        self._principal = principal
        self._journal = journal
        self._recorder = recorder
        self._metrics = metrics
        self._status = StatusWriter(kube, on_write=lambda kind: metrics.status_writes.labels(kind).inc())
        self._keys: Store[MasterKey] = Store()
        depth = metrics.queue_depth.labels(MASTER_KEY_KIND)
        self.queue = WorkQueue(
            self._reconcile,
            workers=len(tokens),
            on_depth=depth.set,
            group_of=lambda key: self.token_of(key.name)[0],
            group_limit=1,
        )

    def observe(self, key: MasterKey) -> bool:
        """Take in a state of a CustomerMasterKey; news is looked at. True if it changes what operations may do, so
        that whatever waits for the key should be tried again."""
        before = self._keys.get(key.key)
        if not self._keys.put(key):
            return False
        self.queue.add(key.key)
        return before is None or _decisive(before) != _decisive(key)

    def observe_gone(self, key: ObjectKey, resource_version: int) -> bool:
        """Take in a deletion; True if it is news. The material stays in the token."""
        return self._keys.remove(key, resource_version)

    def observe_all(self, keys: list[MasterKey], list_version: int) -> set[ObjectKey]:
        """Take in a complete list; what changed is looked at, and returned."""
        changed = self._keys.replace(keys, list_version)
        for key in changed:
            if self._keys.get(key) is not None:
                self.queue.add(key)
        return changed

    def token_of(self, key_name: str) -> tuple[str, bool]:
        """Name of the token that holds a key, and whether it answers now. Unknown keys are in no token."""
        key = self._keys.get(ObjectKey("", key_name))
        return (key.hsm, self._is_available(key.hsm)) if key else ("", False)

    def token_available(self, token: str) -> None:
        """A token answers again: look at its keys."""
        for key in self._keys:
            if key.hsm == token:
                self.queue.add(key.key)

    async def _reconcile(self, queue_key: ObjectKey) -> None:
        """Called by the queue, one key of a token at a time: generation is serial by design."""
        name = queue_key.name
        try:
            for _ in range(_MAX_STEPS):
                key = masterkey.parse(await self._kube.get(paths.master_key(name)))
                if key.deleting or not await self._step(key):
                    break
            else:
                self.queue.retry(queue_key)
        except ApiError as error:
            if error.status == 404:
                self.queue.forget(queue_key)
                return
            _log.info("master key %s: %s; trying again", name, error)
            self.queue.retry(queue_key, at_least=error.retry_after or 0.0)
            self._metrics.reconciles.labels(MASTER_KEY_KIND, "retried").inc()
            return
        self._metrics.reconciles.labels(MASTER_KEY_KIND, "done").inc()

    async def _step(self, key: MasterKey) -> bool:
        """One step; True if there may be another."""
        queue_key = ObjectKey("", key.name)
        try:
            token = self._token(key)
            step = lifecycle.plan(key, await token.find_all(), self._cluster, token.algorithm)
            match step:
                case RecordIntent():
                    return await self._record_intent(key)
                case Generate(ref, spec):
                    await self._generate(key, token, ref, spec)
                    return True
                case Publish():
                    await self._accept(key, token, step)
                    await self._publish(key, token, step)
                case Refuse(error):
                    raise error
                case _ as unreachable:
                    assert_never(unreachable)
        except StrongroomError as error:
            await self._report(key, error)
            if error.reason.healing is Healing.RETRY or self._is_back(error, key):
                self.queue.retry(queue_key)
            else:
                self.queue.add_after(queue_key, _SLOW_RETRY_SECONDS)  # someone may mend the token by its own tools
            return False
        self.queue.forget(queue_key)
        return False

    def _token(self, key: MasterKey) -> Token:
        token = self._tokens.get(key.hsm)
        if token is None:
            raise StrongroomError(
                Reason.HSM_UNAVAILABLE,
                f"spec.hsm {key.hsm!r} is not among this operator's tokens: {', '.join(sorted(self._tokens))}",
                hint="Name one of them, or add it to `hsms` in the operator's configuration",
            )
        return token

    def _is_back(self, error: StrongroomError, key: MasterKey) -> bool:
        """Whether the token that was away has come back meanwhile."""
        return error.reason.healing is Healing.TOKEN and self._is_available(key.hsm)

    def _is_available(self, hsm: str) -> bool:
        token = self._tokens.get(hsm)
        return token is not None and token.available

    async def _record_intent(self, key: MasterKey) -> bool:
        """Say in status which id and version will be generated, onto exactly the object that was read."""
        key_id = KeyId(uuid.uuid4())
        ref = lifecycle.first_version(key_id)
        pending = {"version": ref.version, "keyId": str(key_id), "by": self._instance, "at": _rfc3339(_now())}
        message = f"generating version {ref.version} in the token"
        await self._write(
            key,
            {"pendingVersion": pending, "state": "Creating"},
            conditions.not_ready(Reason.KEY_NOT_READY, message, key.generation, stalled=False),
            resource_version=str(key.resource_version),
        )
        return True

    async def _generate(self, key: MasterKey, token: Token, ref: KeyVersionRef, spec: KeySpec) -> None:
        entry = self._entry(EventName.CREATE_KEY, key, ref)
        try:
            await token.generate(ref, KeyLabel(self._cluster, key.name, ref.version, _now()), spec)
        except StrongroomError as error:
            self._journal.refusal(entry, error)
            raise

    async def _accept(self, key: MasterKey, token: Token, step: Publish) -> None:
        """Material must behave as it should before its first use, whoever made it and whatever crashed meanwhile, and
        whenever the library was started: the token may be another one. That it is there now is recorded before anything
        can be done with it."""
        for material in step.materials:
            if not token.proved(material.ref):
                await token.verify(material.ref)
        ref = step.materials[-1].ref
        if key.pending is not None:
            self._journal.success(self._entry(EventName.CREATE_KEY, key, ref))
            self._event(key, "KeyCreated", f"Generated version {ref.version} of key id {ref.key_id} in HSM {key.hsm}")
        if not step.adopted:
            return
        self._journal.success(self._entry(EventName.ADOPT_KEY, key, ref))
        shared = ", shared with another owner: it is never rotated or destroyed here" if step.shared else ""
        self._event(key, Reason.KEY_ADOPTED.value, f"Adopted key id {step.key_id} found in HSM {key.hsm}{shared}")

    async def _publish(self, key: MasterKey, token: Token, step: Publish) -> None:
        info = await token.info()
        current = step.materials[-1]
        newest = current.ref.version
        algorithms = [_algorithm(key, token, material) for material in step.materials]
        versions = [
            {
                "version": material.ref.version,
                "state": (VersionState.PRIMARY if material is current else VersionState.DECRYPT_ONLY).value,
                "createdAt": _created_at(key, material.ref, material.label),
                "algorithm": algorithm.name,
            }
            for material, algorithm in zip(step.materials, algorithms, strict=True)
        ]
        oaep_hash = algorithms[-1].oaep_hash
        fields = {
            "keyId": str(step.key_id),
            "state": (key.spec_state or KeyState.CREATING).value,
            "currentVersion": newest,
            "versions": versions,
            "publicKey": pem.public_key(current.public_key) if oaep_hash else None,
            "oaepHash": oaep_hash.value if oaep_hash else None,
            "shared": True if step.shared else None,
            "hsm": {
                "name": key.hsm,
                "manufacturer": info.manufacturer,
                "model": info.model,
                "serial": info.serial,
                "firmware": info.firmware,
                "neverExtractable": all(material.never_extractable for material in step.materials),
                "certification": self._certifications[key.hsm],
            },
        }
        self._record_state_change(key)
        message = f"key id {step.key_id}, version {newest}, is ready in HSM {key.hsm}"
        new = conditions.ready(Reason.KEY_READY, message, key.generation)
        await self._write(key, fields, new, resource_version=str(key.resource_version))

    def _record_state_change(self, key: MasterKey) -> None:
        """Before status says so: what cannot be recorded is tried again."""
        before, after = str(key.status.get("state") or ""), key.state.value
        if before in ("", KeyState.CREATING, after) or key.state is KeyState.CREATING:
            return
        entry = self._entry(EventName.CHANGE_KEY_STATE, key, None)
        entry.detail = {"from": before, "to": after}
        self._journal.success(entry)
        self._event(key, f"Key{after}", f"The key is now {after}; it was {before}")

    async def _report(self, key: MasterKey, error: StrongroomError) -> None:
        """Say why the key is not ready. What was published stays: blobs still name it."""
        _log.warning("master key %s: %s", key.name, error)
        kept = {name: value for name, value in key.status.items() if name not in ("observedGeneration", "conditions")}
        if key.state is not KeyState.CREATING:  # it holds for operations, whether or not the HSM is there
            with contextlib.suppress(StrongroomError):  # what cannot be recorded is not told either, and tried again
                self._record_state_change(key)
                kept["state"] = key.state.value
        new = conditions.not_ready(error.reason, str(error), key.generation)
        if await self._write(key, kept, new):
            self._event(key, error.reason.value, str(error), EventType.WARNING)

    async def _write(
        self, key: MasterKey, fields: Mapping[str, Any], new: list[Condition], *, resource_version: str = ""
    ) -> bool:
        if key.known_spec is not None and key.known_spec.asymmetric:
            new = [*new, conditions.unauthenticated_sealing(key.generation)]
        written = await self._status.write(
            MASTER_KEY_KIND,
            paths.master_key(key.name),
            uid=key.uid,
            old=key.status,
            fields={"observedGeneration": key.generation, **fields},
            new_conditions=new,
            resource_version=resource_version,
        )
        return written is not None

    def _entry(self, event: EventName, key: MasterKey, ref: KeyVersionRef | None) -> Entry:
        key_id = ref.key_id if ref else key.key_id
        versions = [ref.version] if ref else []
        return Entry(
            event, None, self._principal, key_name=key.name, key_id=str(key_id), key_versions=versions, hsm=key.hsm
        )

    def _event(self, key: MasterKey, reason: str, note: str, type_: EventType = EventType.NORMAL) -> None:
        reference = ObjectReference(KMS_API_VERSION, MASTER_KEY_KIND, "", key.name, key.uid, key.generation)
        self._recorder.record(reference, type_, reason=reason, action="Reconcile", note=note)


def _decisive(key: MasterKey) -> tuple[object, ...]:
    """What of a key decides about operations."""
    return key.uid, key.hsm, key.key_spec, key.spec_state, key.key_id, key.versions


def _algorithm(key: MasterKey, token: Token, material: KeyMaterial) -> Algorithm:
    """What was published first stays: values were encrypted with it, whatever the token's profile says now."""
    algorithm = key.algorithm(material.ref.version) or token.algorithm(material.spec)
    assert algorithm is not None  # the plan refuses new versions that the token cannot have
    return algorithm


def _created_at(key: MasterKey, ref: KeyVersionRef, label: KeyLabel | None) -> str:
    """Kept in the token's label; for foreign labels, what was published first."""
    if label is not None:
        return _rfc3339(label.created_at)
    known = next((entry.created_at for entry in key.versions if entry.version == ref.version), None)
    return _rfc3339(known or _now())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
