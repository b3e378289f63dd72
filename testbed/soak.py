# SPDX-License-Identifier: Apache-2.0
"""`make soak-hsm`: 200,000 operations, and the worker and its parent use no more memory at the end.

One phase for each kind of work, so that a leak shows where it is: AES values encrypted and decrypted one by one and in
batches, forged values refused, RSA values decrypted (each unwraps a key and destroys it), keys looked for. Prints one
JSON object; fails if the resident memory of either process grows by more than the phase's limit, in bytes for each
operation after the first tenth of the phase, by the slope of a line through the samples.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strongroom.errors import InvalidCiphertext
from strongroom.hsm.api import OpenItem, SealItem, Share, Token
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext
from testbed.hsmkeys import AAD, TOKEN_KINDS, KeyInUse, hsm_config, make_key, worker_pids

_OPERATIONS = 200_000
_SESSIONS = 4
_CALLERS = 8
_SAMPLES = 100
_WARM_UP = 0.1
"""Part of a phase that is not looked at: caches fill, the allocator takes its arenas."""
_BATCH = 64
_PAGE = 4096
_KEPT_BY_SOFTHSM = 2500.0
"""SoftHSM 2.6.1 keeps something of every session key until C_Finalize (its issue 563), and each RSA value has one: 250
bytes with one session, some 1,900 with several at work, since what is kept splits the memory of each thread."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of work."""

    name: str
    share: float
    """Of all operations."""
    limit: float
    """Bytes of growth allowed for each operation. An object that is forgotten takes a hundred at least; the kernel
    counts in pages of 4096, so that a short phase is told from a flat one less exactly."""
    work: Callable[[], Awaitable[int]]
    """Does some, and says how many operations that was."""


class Soak:
    """One run over one token."""

    def __init__(self, kind: str, token: Token, aes: KeyInUse, rsa: KeyInUse, values: list[OpenItem]) -> None:
        self._rsa_limit = _KEPT_BY_SOFTHSM if kind == "softhsm" else 16.0
        self._token = token
        self._aes = aes
        self._rsa = rsa
        self._aes_value, self._rsa_value = values
        self._batch = [SealItem(Plaintext(b"value"), AAD)] * _BATCH

    def phases(self) -> list[Phase]:
        """All, in the order in which they are run."""
        return [
            Phase("AES, one by one", 0.4, 4, self._one),
            Phase("AES, in batches", 0.4, 4, self._many),
            Phase("forged values", 0.1, 16, self._forged),
            Phase("RSA", 0.09, self._rsa_limit, self._unwrap),
            Phase("finding keys", 0.01, 64, self._find),
        ]

    async def _one(self) -> int:
        item = await self._aes.seal(bytes(1024))
        await self._aes.open(item)
        return 2

    async def _many(self) -> int:
        aes = self._aes
        sealed = await self._token.seal(aes.ref, aes.algorithm, self._batch, share=Share.API)
        items = [OpenItem(each.nonce, each.body, AAD, "value") for each in sealed]
        await self._token.open(aes.ref, aes.algorithm, items, share=Share.RECONCILE)
        return 2 * _BATCH

    async def _forged(self) -> int:
        try:
            await self._aes.open(replace(self._aes_value, nonce=bytes(12)))
        except InvalidCiphertext:
            return 1
        raise AssertionError("a forged value was accepted")

    async def _unwrap(self) -> int:
        await self._rsa.open(self._rsa_value)
        return 1

    async def _find(self) -> int:
        assert len(await self._token.find_all()) == 2
        return 1


async def run_phase(phase: Phase, operations: int, pids: dict[str, int]) -> dict[str, Any]:
    """Figures of one phase; `growth` is bytes an operation."""
    total, done, started = int(operations * phase.share), 0, time.monotonic()
    samples: list[tuple[int, dict[str, int]]] = []

    async def caller() -> None:
        nonlocal done
        while done < total:
            done += await phase.work()
            if done >= total * len(samples) / _SAMPLES:
                gc.collect()
                samples.append((done, {who: _resident_bytes(pid) for who, pid in pids.items()}))

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    counted = [(at, memory) for at, memory in samples if at >= total * _WARM_UP]
    growth = {who: _slope([(at, memory[who]) for at, memory in counted]) for who in pids}
    return {
        "operations": done,
        "per_second": round(done / (time.monotonic() - started)),
        "resident_mib": {who: round(samples[-1][1][who] / 2**20, 1) for who in pids},
        "growth_bytes_per_operation": {who: round(slope, 2) for who, slope in growth.items()},
        "limit": phase.limit,
        "flat": all(slope <= phase.limit for slope in growth.values()),
    }


def _slope(points: list[tuple[int, int]]) -> float:
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def _resident_bytes(pid: int) -> int:
    """Of the process alone: what it shares with others, such as the library's code, does not come and go."""
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * _PAGE


async def _run(kind: str, operations: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        token = Token(hsm_config(TOKEN_KINDS[kind](Path(directory, kind), "soak"), sessions=_SESSIONS))
        try:
            await token.start()
            aes, rsa = [await make_key(token, spec) for spec in (KeySpec.AES_256, KeySpec.RSA_3072)]
            soak = Soak(kind, token, aes, rsa, [await aes.seal(b"value"), await rsa.seal(b"value")])
            (worker,) = worker_pids()
            pids = {"worker": worker, "parent": os.getpid()}
            figures = {phase.name: await run_phase(phase, operations, pids) for phase in soak.phases()}
            return {"token": kind, "phases": figures, "workers_lost": token.statistics.worker_losses}
        finally:
            await token.close()


def main() -> int:
    """Print the figures; 1 if memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token", choices=TOKEN_KINDS, default="softhsm")
    parser.add_argument("--operations", type=int, default=_OPERATIONS)
    arguments = parser.parse_args()
    figures = asyncio.run(_run(arguments.token, arguments.operations))
    print(json.dumps(figures, indent=2))
    return 0 if figures["workers_lost"] == 0 and all(phase["flat"] for phase in figures["phases"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
