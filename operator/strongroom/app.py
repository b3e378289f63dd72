# SPDX-License-Identifier: Apache-2.0
"""The composition root: builds every object of the operator once, runs them, and shuts down in order."""

import argparse
import asyncio
import gc
import hashlib
import logging
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from strongroom import __version__, config
from strongroom.apiserver.server import ApiServer
from strongroom.audit.journal import Journal
from strongroom.audit.record import Entry, EventName
from strongroom.authz import Authorizer
from strongroom.config import Config, ConfigurationError
from strongroom.controllers.election import Elector
from strongroom.controllers.encryptedsecret import EncryptedSecretReconciler
from strongroom.controllers.masterkey import MasterKeyReconciler
from strongroom.controllers.relist import Relister
from strongroom.controllers.watch import Kind, Watches, WatchEvent
from strongroom.controllers.workqueue import Lane
from strongroom.errors import StrongroomError
from strongroom.events import EventRecorder, EventType
from strongroom.hsm.api import Token, TokenState
from strongroom.hsm.hardening import harden_process
from strongroom.kms.keyreader import KeyReader
from strongroom.kms.ledger import Ledger, ledger_name
from strongroom.kms.service import CryptoService
from strongroom.kube import credentials, paths
from strongroom.kube.client import ApiError, KubeClient
from strongroom.kube.credentials import Credentials
from strongroom.metrics import Metrics
from strongroom.model import encryptedsecret, masterkey, secretfacts
from strongroom.model.ids import KeyVersionRef, ObjectKey
from strongroom.model.keys import Operation
from strongroom.model.masterkey import MasterKey
from strongroom.model.principal import ObjectReference, Permission, Principal
from strongroom.operations import OperationsServer

_log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 2.0


class Operator:
    """Everything of one process. `run` returns after `stop` was called and all is shut down."""

    def __init__(
        self, settings: Config, identity: Credentials, cluster: str, kube: KubeClient, metrics: Metrics
    ) -> None:
        self._settings = settings
        instance = socket.gethostname()
        self._principal = Principal.service_account(settings.namespace, settings.service_account).username
        self._kube = kube
        self._stopping = asyncio.Event()
        self._barrier_passed = False
        self._api_serving = False
        self._metrics = metrics
        self._recorder = EventRecorder(
            self._kube, instance, on_fate=lambda fate: self._metrics.events.labels(fate).inc()
        )
        self._journal = Journal(
            strict=settings.audit.strict,
            file=settings.audit.file,
            on_record=lambda outcome: self._metrics.audit_records.labels(outcome).inc(),
        )
        self._tokens = {hsm.name: self._token(hsm) for hsm in settings.hsms}
        self._metrics.watch_tokens(lambda: {name: token.statistics for name, token in self._tokens.items()})
        self._authorizer = Authorizer(self._kube)
        self._keys = KeyReader(self._kube)
        self._service = CryptoService(
            keys=self._keys,
            tokens=self._tokens,
            authorizer=self._authorizer,
            ledger=Ledger(self._kube, settings.namespace, on_warning=self._warn_of_exhaustion),
            journal=self._journal,
            max_plaintext_bytes=settings.secrets.max_plaintext_bytes,
            on_operation=self._count_operation,
        )
        self._master_keys = MasterKeyReconciler(
            kube=self._kube,
            tokens=self._tokens,
            certifications={hsm.name: hsm.certification for hsm in settings.hsms},
            cluster=cluster,
            instance=instance,
            principal=self._principal,
            journal=self._journal,
            recorder=self._recorder,
            metrics=self._metrics,
        )
        watching = settings.secrets.drift_watch
        self._secrets = EncryptedSecretReconciler(
            kube=self._kube,
            service=self._service,
            permission=self._may_use,
            token_of=self._master_keys.token_of,
            recorder=self._recorder,
            metrics=self._metrics,
            watching=watching,
            denied_metadata=_matcher(settings.secrets.denied_metadata),
            workers=settings.workers,
            workers_per_token=_most_for_one_token(settings.workers, len(settings.hsms)),
        )
        self._relister = Relister(
            self._kube,
            self._secrets,
            on_master_keys=self._observe_master_keys,
            watching=watching,
            seconds=settings.relist_seconds,
        )
        self._watches = Watches(identity, secrets=watching, deliver=self._deliver, on_restart=self._watches_restarted)
        # A pod's uid outlives restarts of its container; without one, no two processes are taken for the same.
        candidate = os.environ.get("POD_UID") or f"{instance}-{uuid.uuid4().hex[:12]}"
        self._elector = Elector(self._kube, settings.namespace, candidate)
        self._api = ApiServer(
            settings.api,
            settings.namespace,
            service=self._service,
            keys=self._keys,
            authorizer=self._authorizer,
            kube=self._kube,
            on_request=lambda verb, code: self._metrics.api_requests.labels(verb, str(code)).inc(),
        )

    def stop(self) -> None:
        """Begin to shut down; harmless when repeated."""
        self._stopping.set()

    async def run(self) -> None:
        """Start everything, wait for `stop`, shut down: first what takes work in, last the tokens."""
        await asyncio.gather(*(token.start() for token in self._tokens.values()))
        background = [asyncio.create_task(self._recorder.run(), name="events")]
        if self._settings.api.enabled:
            background.append(asyncio.create_task(self._serve_api(), name="api"))
        background.append(asyncio.create_task(self._reconcile(), name="reconcile"))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._shut_down(background)

    async def _serve_api(self) -> None:
        await self._api.start()
        await self._api.wait_until_serving()
        self._api_serving = True
        await asyncio.Event().wait()

    async def _reconcile(self) -> None:
        """Every replica knows everything; the leader alone decides. Nothing is decided before the first complete lists
        are in, nor while the lease is lost."""
        listed = await self._relister.barrier()
        self._barrier_passed = True
        self._watches.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relister.run(listed))
            group.create_task(self._lead())

    async def _lead(self) -> None:
        while True:
            await self._elector.acquire()
            self._metrics.leader.set(1)
            leading = [
                asyncio.create_task(self._master_keys.queue.run()),
                asyncio.create_task(self._secrets.queue.run()),
                asyncio.create_task(self._elector.hold()),
            ]
            try:
                done, _ = await asyncio.wait(leading, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._metrics.leader.set(0)
                for task in leading:
                    task.cancel()
                await asyncio.gather(*leading, return_exceptions=True)
            for task in done:
                task.result()

    async def _shut_down(self, background: list[asyncio.Task[None]]) -> None:
        if self._settings.api.enabled:
            await self._api.stop()
        if self._barrier_passed:
            await self._watches.stop()
        failures = []
        for task in background:
            if task.done() and not task.cancelled() and task.exception():
                failures.append(task.exception())
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._elector.release()
        await self._secrets.close()
        await asyncio.gather(*(token.close() for token in self._tokens.values()))
        for failure in failures:
            assert failure is not None
            raise failure

    # Events from the watches, in our loop

    def _deliver(self, event: WatchEvent) -> None:
        metadata = event.body["metadata"]
        version = int(metadata["resourceVersion"])
        match event.kind:
            case Kind.MASTER_KEY if event.deleted:
                if self._master_keys.observe_gone(ObjectKey("", metadata["name"]), version):
                    self._key_changed(metadata["name"])
            case Kind.MASTER_KEY:
                if self._master_keys.observe(masterkey.parse(event.body)):
                    self._key_changed(metadata["name"])
            case Kind.ENCRYPTED_SECRET if event.deleted:
                self._secrets.observe_gone(ObjectKey(metadata["namespace"], metadata["name"]), version)
            case Kind.ENCRYPTED_SECRET if self._secrets.knows(
                ObjectKey(metadata["namespace"], metadata["name"]), version
            ):
                pass  # the echo of our own write
            case Kind.ENCRYPTED_SECRET:
                lane = Lane.BACKLOG if event.initial else Lane.LIVE
                self._secrets.observe(encryptedsecret.parse(event.body), lane)
            case Kind.SECRET:
                self._secrets.observe_target(secretfacts.parse(event.body), gone=event.deleted)

    def _observe_master_keys(self, keys: list[MasterKey], version: int) -> None:
        for key in self._master_keys.observe_all(keys, version):
            self._key_changed(key.name)

    def _key_changed(self, name: str) -> None:
        self._keys.forget(name)
        self._secrets.parking.key_changed(name)

    def _watches_restarted(self) -> None:
        self._metrics.watch_restarts.inc()
        self._relister.trigger()

    # Answers for others

    def _token(self, hsm: config.HsmConfig) -> Token:
        up = self._metrics.hsm_up.labels(hsm.name)
        was = TokenState.STARTING

        def changed() -> None:
            nonlocal was
            token = self._tokens[hsm.name]
            available = token.state is TokenState.AVAILABLE
            up.set(available)
            if available and was is not TokenState.AVAILABLE:
                self._record_login(hsm.name)
                self._master_keys.token_available(hsm.name)
                self._secrets.parking.token_available(hsm.name)
            was = token.state

        places = _most_for_one_token(self._settings.api.client_burst, len(self._settings.hsms))
        return Token(hsm, on_change=changed, api_places=places)

    def _record_login(self, hsm: str) -> None:
        """Nothing is released by a login, so an audit log that is away does not undo it."""
        try:
            self._journal.success(Entry(EventName.HSM_LOGIN, None, self._principal, hsm=hsm))
        except StrongroomError as error:
            _log.warning("the login to HSM %s could not be recorded: %s", hsm, error)

    async def _may_use(self, principal: Principal, key_name: str, namespace: str) -> bool:
        use = Permission.USE
        return await self._authorizer.check(
            principal, verb=use.verb, subresource=use.subresource, name=key_name, namespace=namespace
        )

    def _count_operation(self, operation: Operation, key_name: str, result: str) -> None:
        self._metrics.operations.labels(operation.value, key_name, result).inc()

    def _warn_of_exhaustion(self, key: KeyVersionRef, used: int) -> None:
        _log.warning("key %s has encrypted %d values; rotate it", key, used)
        reference = ObjectReference(
            "v1", "ConfigMap", self._settings.namespace, ledger_name(key.key_id), str(key.key_id)
        )
        note = f"Version {key.version} of key id {key.key_id} has encrypted about {used} values; rotate the key"
        self._recorder.record(reference, EventType.WARNING, reason="KeyExhausted", action="Encrypt", note=note)

    def is_healthy(self) -> bool:
        """Asks nothing that a restart of this process would not mend."""
        return self._watches.alive or not self._barrier_passed

    def is_ready(self) -> bool:
        """Whether the first lists are in and the crypto API is served."""
        return self._barrier_passed and (not self._settings.api.enabled or self._api_serving)


def _most_for_one_token(places: int, tokens: int) -> int:
    """How many of so many places one token may take: all tokens but one may hang, and a quarter is left for that."""
    return places if tokens == 1 else max(1, places * 3 // 4 // (tokens - 1))


def _matcher(patterns: list[str]) -> Callable[[str], bool]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda key: any(pattern.fullmatch(key) for pattern in compiled)


async def cluster_mark(kube: KubeClient) -> str:
    """This cluster's mark in a token's labels: 16 hex characters from the uid of kube-system, which no other cluster
    has and which outlives everything but the cluster. Waits until the API server answers."""
    while True:
        try:
            namespace = await kube.get(paths.KUBE_SYSTEM)
        except ApiError as error:
            _log.warning("waiting for the API server: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return hashlib.sha256(str(namespace["metadata"]["uid"]).encode()).hexdigest()[:16]


async def _run(settings: Config) -> None:
    identity = credentials.load()
    kube = KubeClient(identity, connections=settings.workers + settings.api.client_burst)
    metrics = Metrics()
    operations = OperationsServer(metrics)
    loop = asyncio.get_running_loop()
    starting = asyncio.current_task()
    assert starting is not None
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, starting.cancel)
        if settings.metrics_port:  # before anything waits for the API server, so that nobody takes that for a hang
            await operations.start(settings.metrics_address, settings.metrics_port)
        operator = Operator(settings, identity, await cluster_mark(kube), kube, metrics)
        operations.ask(healthy=operator.is_healthy, ready=operator.is_ready)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)
        await operator.run()
    finally:
        await operations.stop()
        await kube.close()


def main() -> None:
    """Entry point: `strongroom-operator --config FILE`. Exit code 2 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="strongroom-operator", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration file (docs/configuration.md)")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.config)
        logging.basicConfig(
            level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line an event otherwise
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # signals are ours, it need not warn
        harden_process()
        # Nearly everything dies by its reference count; looking for cycles took a tenth of a backlog's time.
        gc.freeze()
        gc.set_threshold(100_000, 50, 50)
        asyncio.run(_run(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except asyncio.CancelledError:
        sys.exit(0)


if __name__ == "__main__":
    main()
