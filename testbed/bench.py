# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what the operator costs, counted and timed against a bare client's same writes in the same run.

Prints one JSON object. Figures in seconds depend on the machine; ratios within one run and counts of calls do not.

    bare      a Secret and a status each for OBJECTS objects, by a bare HTTP client with the operator's permissions
    drain     OBJECTS new objects made while the operator is down, then: how fast it works them off
    restart   the operator starts anew over all of them unchanged: writes, HSM operations, time to look at each
    latency   RATE applies a second: from the apply's answer to the Secret's existence
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from strongroom.kube import credentials
from testbed import users
from testbed.controlplane import ControlPlane
from testbed.installation import NAMESPACE, install
from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken
from testbed.waiting import wait_for

_KMS = "/apis/kms.strongroom.dev/v1alpha1"
_CRYPTO = "/apis/crypto.strongroom.dev/v1alpha1"
_SECRET_VALUE = b"a password of a usual length"
_PARALLEL = 32


class _Client:
    """A bare client: what the operator's own HTTP layer could at best reach."""

    def __init__(self, kubeconfig: Path) -> None:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        self._credentials = credentials.load()

    async def __aenter__(self) -> "_Client":
        authorization = self._credentials.authorization()
        self.session = aiohttp.ClientSession(
            self._credentials.server,
            connector=aiohttp.TCPConnector(limit=_PARALLEL, ssl=self._credentials.ssl_context),
            headers={"Authorization": authorization} if authorization else {},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content_type}
        async with self.session.request(method, path, data=data, headers=headers) as response:
            answer = await response.json()
            if response.status >= 300:
                raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
            return answer


async def _each(items: list[Any], work: Any) -> None:
    """`work(item)` for all, _PARALLEL at a time."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    await asyncio.gather(*(worker() for _ in range(_PARALLEL)))


class Bench:
    """One run against one control plane."""

    def __init__(self, directory: Path, objects: int, rate: int) -> None:
        self._directory = directory
        self._objects = objects
        self._rate = rate
        self._figures: dict[str, Any] = {"objects": objects}

    def run(self) -> dict[str, Any]:
        (self._directory / "cp").mkdir()
        (self._directory / "hsm").mkdir()
        with ControlPlane(self._directory / "cp") as control_plane:
            operator = OperatorProcess(install(control_plane), [SoftHsmToken(self._directory / "hsm")])
            try:
                self._measure(control_plane, operator)
            finally:
                operator.stop()
        return self._figures

    def _measure(self, control_plane: ControlPlane, operator: OperatorProcess) -> None:
        kubectl = control_plane.kubectl
        operator.start()
        kubectl.apply(
            {
                "apiVersion": "kms.strongroom.dev/v1alpha1",
                "kind": "CustomerMasterKey",
                "metadata": {"name": "bench"},
                "spec": {"hsm": "default", "keySpec": "AES_256", "state": "Enabled"},
            }
        )
        kubectl("wait", "--for=condition=Ready", "cmk/bench", "--timeout=30s")
        for namespace in ("bench", "bare", "live"):
            kubectl("create", "namespace", namespace)
            kubectl(
                *("create", "rolebinding", "use", "-n", namespace, "--clusterrole=strongroom-key-user"),
                f"--serviceaccount={namespace}:default",
            )
        operator.stop()
        admin = control_plane.kubeconfig
        asyncio.run(self._bare(control_plane, admin))
        asyncio.run(self._drain(control_plane, operator, admin))
        self._restart(control_plane, operator)
        asyncio.run(self._latency(admin))

    async def _drain(self, control_plane: ControlPlane, operator: OperatorProcess, admin: Path) -> None:
        operator.start()
        async with _Client(admin) as client:
            blobs = await _encrypt(client, "bench", self._objects)
            operator.stop()
            await _each(
                list(blobs.items()),
                lambda item: client.call(
                    "POST", f"{_KMS}/namespaces/bench/encryptedsecrets", _object("bench", item[0], item[1])
                ),
            )
            before = _writes(control_plane)
            started = time.monotonic()
            await asyncio.to_thread(operator.start, wait=False)
            seconds = await asyncio.to_thread(
                lambda: _until(operator, "Secrets written", lambda m: m.value("strongroom_secret_writes_total"),
                               self._objects, started)
            )  # fmt: skip
            counted = _minus(_writes(control_plane), before)
        self._figures["drain"] = {
            "seconds": round(seconds, 2),
            "perSecond": round(self._objects / seconds, 1),
            "ofBare": round(self._objects / seconds / self._figures["bare"]["perSecond"], 2),
            "apiCalls": counted,
        }

    async def _bare(self, control_plane: ControlPlane, admin: Path) -> None:
        """No operator runs. The objects are gone again when this returns."""
        kubeconfig = users.service_account(control_plane, NAMESPACE, "strongroom")
        names = [f"o{number}" for number in range(self._objects)]
        async with _Client(admin) as client, _Client(kubeconfig) as operator_client:
            uids: dict[str, str] = {}

            async def create(name: str) -> None:
                spec = _object("bare", name, {"password": base64.b64encode(b"x").decode()})
                spec["spec"]["encryptedData"] = {"password": "U1IxAQ=="}
                uids[name] = (await client.call("POST", f"{_KMS}/namespaces/bare/encryptedsecrets", spec))["metadata"][
                    "uid"
                ]

            await _each(names, create)
            started = time.monotonic()

            async def write(name: str) -> None:
                await operator_client.call("POST", "/api/v1/namespaces/bare/secrets", _secret(name, uids[name]))
                await operator_client.call(
                    "PATCH",
                    f"{_KMS}/namespaces/bare/encryptedsecrets/{name}/status",
                    [{"op": "add", "path": "/status", "value": _status(name)}],
                    "application/json-patch+json",
                )

            await _each(names, write)
            seconds = time.monotonic() - started
            for path in (f"{_KMS}/namespaces/bare/encryptedsecrets", "/api/v1/namespaces/bare/secrets"):
                await client.call("DELETE", path)
        self._figures["bare"] = {"seconds": round(seconds, 2), "perSecond": round(self._objects / seconds, 1)}

    def _restart(self, control_plane: ControlPlane, operator: OperatorProcess) -> None:
        operator.stop()
        before = _writes(control_plane)
        started = time.monotonic()
        operator.start(wait=False)
        seconds = _until(
            operator,
            "objects looked at",
            lambda m: m.value("strongroom_reconcile_total", kind="EncryptedSecret"),
            self._objects,
            started,
        )
        metrics = operator.metrics()
        self._figures["restart"] = {
            "seconds": round(seconds, 2),
            "apiCalls": _minus(_writes(control_plane), before),
            "hsmOperations": metrics.value("strongroom_hsm_values_total"),
            "secretWrites": metrics.value("strongroom_secret_writes_total"),
            "statusWrites": metrics.value("strongroom_status_writes_total"),
        }

    async def _latency(self, admin: Path) -> None:
        count = self._rate * 5
        async with _Client(admin) as client:
            blobs = await _encrypt(client, "live", count)
            applied: dict[str, float] = {}
            seen: dict[str, float] = {}
            complete = asyncio.Event()
            watching = asyncio.create_task(_watch(client, "live", seen, count, complete))
            try:
                await asyncio.sleep(1)
                pending = []
                for name, blob in blobs.items():

                    async def apply(name: str = name, blob: dict[str, str] = blob) -> None:
                        path = f"{_KMS}/namespaces/live/encryptedsecrets"
                        await client.call("POST", path, _object("live", name, blob))
                        applied[name] = time.monotonic()

                    pending.append(asyncio.create_task(apply()))
                    await asyncio.sleep(1 / self._rate)
                await asyncio.gather(*pending)
                async with asyncio.timeout(60):
                    await complete.wait()
            finally:
                watching.cancel()
        times = sorted(max(0.0, seen[name] - applied[name]) * 1000 for name in seen)
        self._figures["latency"] = {
            "appliesPerSecond": self._rate,
            "objects": len(times),
            "p50ms": round(statistics.median(times), 1),
            "p99ms": round(times[int(len(times) * 0.99) - 1], 1),
        }


async def _encrypt(client: _Client, namespace: str, count: int) -> dict[str, dict[str, str]]:
    """Fresh blobs of scope Strict for that many objects."""
    blobs: dict[str, dict[str, str]] = {}

    async def one(name: str) -> None:
        request = {
            "apiVersion": "crypto.strongroom.dev/v1alpha1",
            "kind": "EncryptRequest",
            "spec": {
                "scope": "Strict",
                "name": name,
                "values": {"password": base64.b64encode(_SECRET_VALUE).decode()},
            },
        }
        path = f"{_CRYPTO}/namespaces/{namespace}/keys/bench/encrypt"
        blobs[name] = (await client.call("POST", path, request))["status"]["encryptedData"]

    await _each([f"o{number}" for number in range(count)], one)
    return blobs


async def _watch(client: _Client, namespace: str, seen: dict[str, float], count: int, complete: asyncio.Event) -> None:
    """Note when each Secret of the namespace comes into being; `complete` when that many have."""
    path = f"/api/v1/namespaces/{namespace}/secrets?watch=true&resourceVersion=0"
    async with client.session.get(path) as response:
        async for line in response.content:
            event = json.loads(line)
            if event["type"] == "ADDED":
                seen.setdefault(event["object"]["metadata"]["name"], time.monotonic())
            if len(seen) >= count:
                complete.set()


def _object(namespace: str, name: str, blobs: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"keyRef": {"name": "bench"}, "scope": "Strict", "encryptedData": blobs},
    }


def _secret(name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "strongroom", "strongroom.dev/managed": "true"},
            "ownerReferences": [
                {
                    "apiVersion": "kms.strongroom.dev/v1alpha1",
                    "kind": "EncryptedSecret",
                    "name": name,
                    "uid": uid,
                    "controller": True,
                }
            ],
        },
        "data": {"password": base64.b64encode(_SECRET_VALUE).decode()},
    }


def _status(name: str) -> dict[str, Any]:
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "Suspended",
        "message": f"Secret {name} holds the 1 values of this generation",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {"observedGeneration": 1, "conditions": [condition]}


def _until(operator: OperatorProcess, what: str, value: Any, target: float, started: float) -> float:
    """Seconds from `started` until the operator's metric reaches the target."""

    def reached() -> bool:
        try:
            return bool(value(operator.metrics()) >= target)
        except OSError:
            return False

    wait_for(reached, 300, what, interval=0.2)
    return time.monotonic() - started


def _writes(control_plane: ControlPlane) -> dict[str, float]:
    """kube-apiserver's own count of requests for what the operator writes and reads singly."""
    metrics = control_plane.metrics()
    return {
        f"{verb} {resource}{'/' + subresource if subresource else ''}": metrics.value(
            "apiserver_request_total", verb=verb, resource=resource, subresource=subresource
        )
        for verb in ("POST", "PATCH", "APPLY", "GET", "PUT")
        for resource, subresource in (
            ("secrets", ""),
            ("encryptedsecrets", ""),
            ("encryptedsecrets", "status"),
            ("customermasterkeys", ""),
            ("customermasterkeys", "status"),
            ("subjectaccessreviews", ""),
            ("events", ""),
        )
    }


def _minus(after: dict[str, float], before: dict[str, float]) -> dict[str, int]:
    return {name: int(after[name] - before[name]) for name in after if after[name] != before[name]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m testbed.bench", description=__doc__)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--rate", type=int, default=100, help="applies a second in the latency part")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = Bench(Path(directory), arguments.objects, arguments.rate).run()
    json.dump(figures, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
