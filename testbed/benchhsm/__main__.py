# SPDX-License-Identifier: Apache-2.0
"""What the HSM layer costs. Prints one JSON object.

Through the whole layer, worker process included, and from C on the same token, in turn, several rounds, medians:

    encrypt, decrypt   AES-GCM of 1 KB with 32 bytes of additional data; 64 values a request, several requests in flight
    open               RSA_3072: values of 1 KB under keys of their own, unwrapped in the token
    latency            one value alone: what the way to the worker and back adds to a direct call
    sessions           a token whose every call takes 1 ms: 16 sessions against one

Figures in seconds depend on the machine; ratios within one run do not, as long as nothing else runs: ours is two
processes, which want a core each, C is one.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from strongroom.config import HsmConfig
from strongroom.envelope.sealing import seal_with_public_key
from strongroom.hsm.api import KeyLabel, OpenItem, SealItem, Share, Token
from strongroom.hsm.label import pack_id
from strongroom.model.algorithms import Algorithm, OaepHash
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.limits import MAX_VALUES
from strongroom.model.plaintext import Plaintext
from testbed.benchhsm.cloop import CLoop
from testbed.shim import Shim
from testbed.softhsm import SoftHsmToken

_VALUE, _AAD = bytes(1024), bytes(32)
_IN_FLIGHT = 4
"""Requests at a time: while the worker does one, the next waits in the socket and the last is taken apart."""
_ROUND_SECONDS = 1.0
_LATENCY_COUNT = 1000
_DELAY_SECONDS = 0.001


def _label(ref: KeyVersionRef) -> KeyLabel:
    return KeyLabel("0123456789abcdef", "bench", ref.version, datetime.now(UTC).replace(microsecond=0))


async def _rate(work: Callable[[], Awaitable[int]], in_flight: int, seconds: float) -> float:
    """Values a second, `in_flight` calls of `work` at a time, each of which says how many it did."""
    done = 0
    started = time.perf_counter()

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            count = await work()
            done += count

    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    return done / (time.perf_counter() - started)


class _Key:
    """A key in a Token, and what the measurements do with it."""

    def __init__(self, token: Token, ref: KeyVersionRef, algorithm: Algorithm) -> None:
        self._token = token
        self.ref = ref
        self.algorithm = algorithm
        self.opening: list[OpenItem] = []

    @classmethod
    async def generate(cls, token: Token, spec: KeySpec) -> "_Key":
        ref = KeyVersionRef(KeyId(uuid.uuid4()), KeyVersion(1))
        await token.generate(ref, _label(ref), spec)
        algorithm = token.algorithm(spec)
        assert algorithm is not None
        return cls(token, ref, algorithm)

    async def seal(self, count: int) -> int:
        items = [SealItem(Plaintext(_VALUE), _AAD) for _ in range(count)]
        self.sealed = await self._token.seal(self.ref, self.algorithm, items, share=Share.RECONCILE)
        return count

    async def open(self) -> int:
        opened = await self._token.open(self.ref, self.algorithm, self.opening, share=Share.RECONCILE)
        for plaintext in opened:
            plaintext.wipe()
        return len(opened)


class _Figures:
    """Rounds of one measurement: ours and C's, in turn."""

    def __init__(self) -> None:
        self._ours: list[float] = []
        self._c: list[float] = []

    def add(self, ours: float, c: float) -> None:
        self._ours.append(ours)
        self._c.append(c)

    def result(self) -> dict[str, float]:
        ratios = [ours / c for ours, c in zip(self._ours, self._c, strict=True)]
        return {
            "perSecond": round(statistics.median(self._ours)),
            "cPerSecond": round(statistics.median(self._c)),
            "ofC": round(statistics.median(ratios), 2),
        }


@asynccontextmanager
async def _token(config: dict[str, Any]) -> AsyncIterator[Token]:
    token = Token(msgspec.convert(config, HsmConfig))
    try:
        await token.start()
        if token.problem is not None:
            raise token.problem
        yield token
    finally:
        await token.close()


async def _throughput(softhsm: SoftHsmToken, rounds: int) -> dict[str, Any]:
    async with _token(softhsm.config()) as token:
        aes = await _Key.generate(token, KeySpec.AES_256)
        rsa = await _Key.generate(token, KeySpec.RSA_3072)
        await aes.seal(MAX_VALUES)
        aes.opening = [OpenItem(each.nonce, each.body, _AAD, "bench") for each in aes.sealed]
        wrapped_key, nonce, body = seal_with_public_key(
            await token.public_key(rsa.ref), rsa.algorithm, _VALUE, lambda _: _AAD
        )
        rsa.opening = [OpenItem(nonce, body, _AAD, "bench", wrapped_key)] * 16
        oaep = ("1" if rsa.algorithm.oaep_hash is OaepHash.SHA1 else "256", wrapped_key.hex())
        encrypt, decrypt, unwrap, latency = _Figures(), _Figures(), _Figures(), []
        with CLoop(softhsm) as c:

            async def in_c(operation: str, key: _Key, *more: str) -> float:
                return await asyncio.to_thread(c.per_second, operation, pack_id(key.ref), _ROUND_SECONDS, *more)

            for _ in range(rounds):
                ours = await _rate(lambda: aes.seal(MAX_VALUES), _IN_FLIGHT, _ROUND_SECONDS)
                encrypt.add(ours, await in_c("encrypt", aes))
                decrypt.add(await _rate(aes.open, _IN_FLIGHT, _ROUND_SECONDS), await in_c("decrypt", aes))
                unwrap.add(await _rate(rsa.open, _IN_FLIGHT, _ROUND_SECONDS), await in_c("unwrap", rsa, *oaep))
                latency.append((await _latency(aes), await asyncio.to_thread(_direct_latency, softhsm, aes)))
    return {
        "encrypt": encrypt.result(),
        "decrypt": decrypt.result(),
        "open": unwrap.result(),
        "latency": {
            "milliseconds": _milliseconds(through for through, _ in latency),
            "direct": _milliseconds(direct for _, direct in latency),
            "added": _milliseconds(through - direct for through, direct in latency),
        },
    }


def _milliseconds(seconds: Iterable[float]) -> float:
    return round(statistics.median(seconds) * 1000, 3)


async def _latency(key: _Key) -> float:
    """Median of one unbatched encryption, in seconds."""
    durations = []
    for _ in range(_LATENCY_COUNT):
        started = time.perf_counter()
        await key.seal(1)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


def _direct_latency(softhsm: SoftHsmToken, key: _Key) -> float:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "testbed.benchhsm.direct", softhsm.module, softhsm.label, softhsm.pin_file),
            *("softhsm", pack_id(key.ref).hex(), str(_LATENCY_COUNT)),
        ],
        env={**os.environ, **softhsm.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


async def _slow_rate(softhsm: SoftHsmToken, shim: Shim, sessions: int) -> float:
    """Values a second with so many sessions, each call delayed as by a network."""
    async with _token({**shim.config(softhsm.config()), "sessions": sessions}) as token:
        key = await _Key.generate(token, KeySpec.AES_256)
        shim.set("*", delays=_DELAY_SECONDS)
        try:
            await _rate(lambda: key.seal(1), 2 * sessions, _ROUND_SECONDS / 2)  # every session looks the key up, once
            return await _rate(lambda: key.seal(1), 2 * sessions, _ROUND_SECONDS)
        finally:
            shim.clear()


def _sessions(softhsm: SoftHsmToken, directory: Path, rounds: int) -> dict[str, float]:
    directory.mkdir()
    shim = Shim(directory, softhsm.module)
    measured = [[asyncio.run(_slow_rate(softhsm, shim, sessions)) for sessions in (1, 16)] for _ in range(rounds)]
    return {
        "one": round(statistics.median(one for one, _ in measured)),
        "sixteen": round(statistics.median(sixteen for _, sixteen in measured)),
        "ratio": round(statistics.median(sixteen / one for one, sixteen in measured), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m testbed.benchhsm", description="Measure the HSM layer.")
    parser.add_argument("--rounds", type=int, default=7, help="how often each pair is measured (7)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strongroom-bench-") as temporary:
        softhsm = SoftHsmToken(Path(temporary, "softhsm"))
        figures = asyncio.run(_throughput(softhsm, arguments.rounds))
        figures["sessions"] = _sessions(softhsm, Path(temporary, "shim"), arguments.rounds)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
