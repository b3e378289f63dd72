# SPDX-License-Identifier: Apache-2.0
"""`make stress-hsm`: a minute of everything at once on one token, and not one error.

32 callers keep 16 sessions, each a thread of the worker's, in C calls: they encrypt and decrypt with AES, decrypt with
RSA, and send forged values, while keys are created, found and verified beside them. Prints one JSON object; fails if
anything but a forged value was refused, if anything came back wrong, or if the worker was lost.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from strongroom.errors import InvalidCiphertext, StrongroomError
from strongroom.hsm.api import Share, Token
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import TOKEN_KINDS, KeyInUse, hsm_config, make_key

_SESSIONS = 16
_CALLERS = 32
_UNWRAPPING = 4
"""Callers that use RSA."""
_SIZES = (0, 17, 100, 1024, 4096)


class Stress:
    """One run over one token."""

    def __init__(self, token: Token, seconds: float) -> None:
        self._token = token
        self._seconds = seconds
        self._ends_at = 0.0
        self._done: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    async def run(self) -> dict[str, Any]:
        """Figures of the run."""
        aes, rsa = [await make_key(self._token, spec) for spec in (KeySpec.AES_256, KeySpec.RSA_3072)]
        self._ends_at = time.monotonic() + self._seconds
        await asyncio.gather(
            *(self._repeat(partial(self._use_values, aes, caller)) for caller in range(_CALLERS - _UNWRAPPING)),
            *(self._repeat(partial(self._use_rsa, rsa)) for _ in range(_UNWRAPPING)),
            self._repeat(self._make_keys),
            self._repeat(self._find_keys),
        )
        statistics = self._token.statistics
        return {
            "seconds": self._seconds,
            "sessions": statistics.sessions,
            "done": dict(self._done),
            "operations_per_second": round(self._done.total() / self._seconds),
            "errors": dict(self._errors),
            "workers_lost": statistics.worker_losses,
        }

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        turn = 0
        while time.monotonic() < self._ends_at:
            try:
                await work(turn)
            except StrongroomError as error:
                self._errors[str(error)] += 1
                await asyncio.sleep(0.1)  # the next one may fail as fast
            turn += 1

    async def _use_values(self, key: KeyInUse, caller: int, turn: int) -> None:
        share = Share.API if caller % 2 else Share.RECONCILE
        plaintext = b"%4d" % caller * (_SIZES[turn % len(_SIZES)] // 4)
        item = await key.seal(plaintext, share=share)
        self._done["encrypt"] += 1
        self._check(await key.open(item, share=share) == plaintext)
        self._done["decrypt"] += 1
        if turn % 50 == 0:
            await self._refused(key, replace(item, nonce=bytes(12)), share)

    async def _use_rsa(self, key: KeyInUse, turn: int) -> None:
        plaintext = b"%d" % turn
        item = await key.seal(plaintext)
        self._check(await key.open(item) == plaintext)
        self._done["decrypt with RSA"] += 1
        if turn % 50 == 0:
            await self._refused(key, replace(item, wrapped_key=bytes(len(item.wrapped_key))), Share.API)

    async def _refused(self, key: KeyInUse, forged: Any, share: Share) -> None:
        try:
            await key.open(forged, share=share)
        except InvalidCiphertext:
            self._done["refuse a forged value"] += 1
        else:
            self._check(False)

    async def _make_keys(self, turn: int) -> None:
        key = await make_key(self._token, KeySpec.RSA_3072 if turn % 50 == 49 else KeySpec.AES_256)
        self._done["create a key"] += 1
        (found,) = await self._token.find(key.ref.key_id)
        self._check(found.ref == key.ref)
        self._done["find a key"] += 1

    async def _find_keys(self, _turn: int) -> None:
        self._check(len(await self._token.find_all()) >= 2)
        self._done["find all keys"] += 1

    def _check(self, right: bool) -> None:
        if not right:
            self._errors["something came back wrong"] += 1


async def _run(kind: str, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        token = Token(hsm_config(TOKEN_KINDS[kind](Path(directory, kind), "stress"), sessions=_SESSIONS))
        try:
            await token.start()
            return {"token": kind, **await Stress(token, seconds).run()}
        finally:
            await token.close()


def main() -> int:
    """Print the figures; 1 if there was an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token", choices=TOKEN_KINDS, default="softhsm")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    figures = asyncio.run(_run(arguments.token, arguments.seconds))
    print(json.dumps(figures, indent=2))
    return 1 if figures["errors"] or figures["workers_lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
