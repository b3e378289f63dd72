# SPDX-License-Identifier: Apache-2.0
"""Reconciles EncryptedSecrets: gather, decide, act.

    gather   the object (live if its blobs are not in memory) and its Secret's metadata
    decide   controllers/decision.py, a pure function
    act      decrypt behind the one door (kms/service.py) → write the Secret → status → Event

A failure keeps the Secret as it was, says so in status once, and waits for what can heal it (controllers/parking.py).
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, assert_never

from strongroom.controllers import decision
from strongroom.controllers.decision import Action, Snapshot
from strongroom.controllers.parking import Parking, grant_of
from strongroom.controllers.secretwriter import SecretWriter, TargetGone, require_ownable
from strongroom.controllers.statuswriter import StatusWriter
from strongroom.controllers.store import Store
from strongroom.controllers.waiting import PermissionRoom
from strongroom.controllers.workqueue import Lane, WorkQueue
from strongroom.errors import Healing, Reason, StrongroomError
from strongroom.events import EventRecorder, EventType
from strongroom.kms.service import CryptoService, Decrypted, DecryptItem
from strongroom.kube import paths
from strongroom.kube.client import ApiError, KubeClient
from strongroom.metrics import Metrics
from strongroom.model import conditions, encryptedsecret
from strongroom.model.conditions import Condition, ConditionType
from strongroom.model.encryptedsecret import EncryptedSecret
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import ENCRYPTED_SECRET_KIND
from strongroom.model.principal import Caller, Permission, Principal, Source
from strongroom.model.secretfacts import SecretFacts

_log = logging.getLogger(__name__)

_FIGHT_WINDOW_SECONDS: Final = 60.0
"""A Secret that needs repair again within this time is being fought over: repairs back off."""
_OVERLOADED_SECONDS: Final = 1.0
"""Pause after a 429 that does not say how long."""
_NEVER_FOUGHT: Final = (0, 0.0)


class EncryptedSecretReconciler:
    """Owns what is known of EncryptedSecrets and their Secrets. Belongs to one event loop.

    `watching`: Secrets are watched, so their drift is seen. `denied_metadata` refuses template labels and annotations.
    """

    def __init__(
        self,
        *,
        kube: KubeClient,
        service: CryptoService,
        permission: Callable[[Principal, str, str], Awaitable[bool]],
        token_of: Callable[[str], tuple[str, bool]],
        recorder: EventRecorder,
        metrics: Metrics,
        watching: bool,
        denied_metadata: Callable[[str], bool],
        workers: int,
        workers_per_token: int,
    ) -> None:
        self._kube = kube
        self._service = service
        self._recorder = recorder
        self._metrics = metrics
        self._watching = watching
        self._denied_metadata = denied_metadata
        self._secrets: Store[EncryptedSecret] = Store()
        self._targets: Store[SecretFacts] = Store()
        self._repairs: dict[ObjectKey, tuple[int, float]] = {}
        self._writer = SecretWriter(
            kube, watching=watching, on_write=lambda write: metrics.secret_writes.labels(write).inc()
        )
        self._status = StatusWriter(kube, on_write=lambda kind: metrics.status_writes.labels(kind).inc())
        depth = metrics.queue_depth.labels(ENCRYPTED_SECRET_KIND)
        self.queue = WorkQueue(
            self._reconcile,
            workers=workers,
            on_depth=depth.set,
            group_of=lambda key: token_of(secret.key_name)[0] if (secret := self._secrets.get(key)) else "",
            group_limit=workers_per_token,
        )
        self._permission_room = PermissionRoom(
            review=lambda grant: permission(
                Principal.service_account(grant.namespace, grant.service_account), grant.key_name, grant.namespace
            ),
            release=lambda keys: self.parking.release(keys),
            remind=self._look_again,
        )
        self.parking = Parking(self.queue, self._permission_room, token_of=token_of)

    # What is known

    def observe(self, secret: EncryptedSecret, lane: Lane) -> None:
        """Take in a state of an EncryptedSecret; news is looked at."""
        settled = secret.ready and secret.observed and secret.applied
        if self._secrets.put(secret.without_blobs() if settled else secret):
            self.queue.add(secret.key, lane)

    def observe_gone(self, key: ObjectKey, resource_version: int) -> None:
        """Take in a deletion of an EncryptedSecret. Its Secret is the garbage collector's."""
        if self._secrets.remove(key, resource_version):
            self._forget(key)
            self._repairs.pop(key, None)

    def observe_target(self, target: SecretFacts, *, gone: bool) -> None:
        """Take in a state of a Secret that carries our label."""
        news = self._targets.remove(target.key, target.resource_version) if gone else self._targets.put(target)
        if news and self._secrets.get(target.key) is not None:
            self.queue.add(target.key)

    def observe_targets(self, targets: list[SecretFacts], list_version: int) -> None:
        """Take in a complete list of the Secrets that carry our label."""
        for key in self._targets.replace(targets, list_version):
            if self._secrets.get(key) is not None:
                self.queue.add(key, Lane.BACKLOG)

    def knows(self, key: ObjectKey, resource_version: int) -> bool:
        """Whether this state of an EncryptedSecret, or a newer one, has been taken in."""
        known = self._secrets.get(key)
        return known is not None and known.resource_version >= resource_version

    def known_keys(self) -> list[tuple[ObjectKey, int]]:
        """Every EncryptedSecret and the version it is known in."""
        return [(secret.key, secret.resource_version) for secret in self._secrets]

    async def refresh(self, key: ObjectKey) -> None:
        """Read an EncryptedSecret that the watch did not deliver. Raises ApiError."""
        try:
            self.observe(encryptedsecret.parse(await self._kube.get(paths.encrypted_secret(key))), Lane.BACKLOG)
        except ApiError as error:
            if error.status != 404:
                raise

    def _look_again(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self.queue.add(key, Lane.BACKLOG)

    async def close(self) -> None:
        """Stop waiting for permissions."""
        await self._permission_room.close()

    # One object

    async def _reconcile(self, key: ObjectKey) -> None:
        """Called by the queue, one worker a key."""
        with self._metrics.reconcile_seconds.labels(ENCRYPTED_SECRET_KIND).time():
            try:
                result = await self._handle(key)
            except TargetGone:
                result = "gone"
            except ApiError as error:
                # The API server is away, overloaded, or changed the object under our hands.
                _log.info("%s: %s; trying again", key, error)
                self.queue.retry(key, at_least=error.retry_after or 0.0)
                if error.status == 429:
                    self.queue.pause(error.retry_after or _OVERLOADED_SECONDS)
                result = "retried"
        self._metrics.reconciles.labels(ENCRYPTED_SECRET_KIND, result).inc()

    async def _handle(self, key: ObjectKey) -> str:
        secret = self._secrets.get(key)
        if secret is None:
            return "gone"
        released = self.parking.is_released(key)
        snapshot = Snapshot(secret, self._targets.get(key), self._watching, released)
        action = decision.decide(snapshot)
        match action:
            case Action.IGNORE:
                self._settle(secret)
            case Action.SUSPEND:
                await self._write_status(secret, _suspended(secret), ready=secret.applied)
                self._forget(key)
            case Action.CONFIRM:
                await self._write_status(secret, _ready(secret), ready=True)
                self._forget(key)
            case Action.UNSEAL:
                return await self._unseal(secret, released=released)
            case _ as unreachable:
                assert_never(unreachable)
        return str(action.value)

    async def _unseal(self, secret: EncryptedSecret, *, released: bool) -> str:
        if self.parking.is_final(secret):
            return "final"
        denial = self._permission_room.standing(secret.key, grant_of(secret))
        if denial is not None and not released:  # asked already; only how long it lasts is news
            await self._report(secret, denial)
            return denial.reason.value
        if self._postpone_repair(secret):
            return "postponed"
        if not secret.complete:
            await self._read_blobs(secret)
            return "refreshed"
        changes = self.parking.changes_of(secret.key_name)
        try:
            decrypted = await self._decrypt(secret)
            try:
                data = dict(zip(secret.encrypted_data, decrypted.plaintexts, strict=True))
                facts = await self._writer.write(secret, data, self._targets.get(secret.key))
            finally:
                for plaintext in decrypted.plaintexts:
                    plaintext.wipe()
        except StrongroomError as error:
            if not self.parking.park(secret, error, changes=changes):
                await self._report(secret, error)
            return error.reason.value
        if self._watching:
            self._targets.put(facts)
        repaired = secret.ready and secret.observed and secret.applied
        if not await self._write_status(secret, _ready(secret), ready=True, versions=decrypted.versions):
            self._secrets.refresh(secret.without_blobs())
        self._forget(secret.key)  # not before: a status that cannot be written must not be a reason to decrypt at once
        versions = ", ".join(str(version) for version in decrypted.versions)
        values = "1 value" if len(data) == 1 else f"{len(data)} values"
        self._recorder.record(
            secret.reference,
            EventType.NORMAL,
            reason=Reason.DECRYPTED.value,
            action="Repair" if repaired else "Decrypt",
            note=f"{'Repaired' if repaired else 'Wrote'} Secret {secret.key.name} with {values}, "
            f"decrypted by key {secret.key_name} version {versions}",
        )
        return Reason.DECRYPTED.value

    async def _decrypt(self, secret: EncryptedSecret) -> Decrypted:
        caller = Caller(
            Principal.service_account(secret.key.namespace, secret.service_account),
            Permission.USE,
            secret.key.namespace,
            Source(via="Controller"),
            on_behalf_of=secret.reference,
        )
        try:
            secret.check_template(self._denied_metadata)
            bindings = secret.bindings()
        except StrongroomError as error:
            self._service.record_refusal(caller, secret.key_name, error)
            raise
        if self._watching and secret.observed and secret.reason == Reason.TARGET_NOT_OWNED:
            # Nothing is decrypted again before the Secret in the way is gone or handed over.
            target = await self._writer.look(secret.key)
            if target is not None:
                require_ownable(secret, target)
        items = [
            DecryptItem(bindings[data_key], text, where=f"spec.encryptedData[{data_key}]")
            for data_key, text in secret.encrypted_data.items()
        ]
        return await self._service.decrypt(caller, secret.key_name, items)

    async def _read_blobs(self, secret: EncryptedSecret) -> None:
        """Read the object anew with its blobs, and look at it once more."""
        try:
            live = encryptedsecret.parse(await self._kube.get(paths.encrypted_secret(secret.key)))
        except ApiError as error:
            if error.status == 404:
                self.observe_gone(secret.key, secret.resource_version)
                return
            raise
        self._secrets.refresh(live)
        self.queue.add(secret.key)

    # What follows

    def _settle(self, secret: EncryptedSecret) -> None:
        """Nothing to do. What failed for good still waits for its key."""
        self._forget(secret.key)
        if secret.ready or secret.deleting or secret.reason not in Reason.__members__.values():
            return
        if Reason(secret.reason).healing is Healing.KEY:
            self.parking.wait_for_key(secret)

    def _forget(self, key: ObjectKey) -> None:
        self.parking.leave(key)
        self.queue.forget(key)

    def _postpone_repair(self, secret: EncryptedSecret) -> bool:
        """Whether this repair of a Secret that was right must wait, because someone keeps changing it."""
        if not (secret.ready and secret.observed and secret.applied):
            return False
        now = time.monotonic()
        count, last = self._repairs.get(secret.key, _NEVER_FOUGHT)
        if now - last > _FIGHT_WINDOW_SECONDS:
            count = 0
        pause = min(2.0 ** min(count, 10), _FIGHT_WINDOW_SECONDS) / 2 if count else 0.0
        if now - last < pause:
            self.queue.add_after(secret.key, last + pause - now)
            return True
        if secret.complete:  # this try will write
            self._repairs[secret.key] = count + 1, now
        return False

    async def _report(self, secret: EncryptedSecret, error: StrongroomError) -> None:
        """Say in status, and once as an Event, why there is no Secret of this generation."""
        stalled = None
        if error.reason.healing is Healing.PERMISSION:
            # After a restart the clock of the denial starts anew, but what was Stalled stays so.
            still = secret.observed and secret.stalled and secret.reason == error.reason
            stalled = still or self._permission_room.stalled(grant_of(secret))
        new = conditions.not_ready(error.reason, str(error), secret.generation, stalled=stalled)
        if await self._write_status(secret, new, ready=False):
            self._recorder.record(
                secret.reference, EventType.WARNING, reason=error.reason.value, action="Decrypt", note=str(error)
            )

    async def _write_status(
        self, secret: EncryptedSecret, new: list[Condition], *, ready: bool, versions: Sequence[int] | None = None
    ) -> bool:
        """Write what differs; True if anything did. What the Secret was last made from outlives a failure."""
        old = secret.status
        written = await self._status.write(
            ENCRYPTED_SECRET_KIND,
            paths.encrypted_secret(secret.key),
            uid=secret.uid,
            old=old,
            fields={
                "observedGeneration": secret.generation,
                "secretName": secret.key.name if ready else old.get("secretName"),
                "appliedSpec": secret.spec_digest if ready else old.get("appliedSpec"),
                "keyVersions": list(versions) if versions is not None else old.get("keyVersions"),
            },
            new_conditions=new,
        )
        if written is not None and written.generation == secret.generation:
            # Our own write is no news. Over a spec that was changed meanwhile it is: the watch brings that.
            current = replace(secret, status=written.status, resource_version=written.resource_version)
            self._secrets.put(current.without_blobs() if current.ready else current)
        return written is not None


def _ready(secret: EncryptedSecret) -> list[Condition]:
    count = len(secret.encrypted_data)
    message = f"Secret {secret.key.name} holds the {f'{count} values' if count != 1 else 'value'} of this generation"
    return conditions.ready(Reason.DECRYPTED, message, secret.generation)


def _suspended(secret: EncryptedSecret) -> list[Condition]:
    """Suspension alone changes nothing about the Secret; a spec that changed while suspended is not applied."""
    message = "spec.suspend is true: the Secret is left as it is"
    suspended = Condition(ConditionType.SUSPENDED, True, Reason.SUSPENDED, message, secret.generation)
    if secret.applied:
        return [*_ready(secret), suspended]
    message = "spec changed while spec.suspend is true; set it to false to have it applied"
    return [Condition(ConditionType.READY, False, Reason.SUSPENDED, message, secret.generation), suspended]
