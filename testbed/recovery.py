# SPDX-License-Identifier: Apache-2.0
"""`make recovery`: how long it takes from the end of a fault until a value is decrypted again, through a real Token.

    directory   the token's directory was away for AWAY seconds; a library that keeps its files open was ended then
    killed      the library's process was killed (there is no fault to end: counted from the kill)
    crashed     the library crashed in a call; from then on
    pin file    the file held a wrong PIN; counted from the right one
    token pin   the token was given another PIN, then its file; counted from the file
    sessions    the token had no session left for us for AWAY seconds
    hang        the library hung in every call for HANG seconds; each hung call costs a worker after TIMEOUT seconds

Prints one JSON object: median and longest of ROUNDS, in seconds.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from strongroom.errors import StrongroomError
from strongroom.hsm.api import OpenItem, Token, TokenState
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import TOKEN_KINDS, KeyInUse, hsm_config, make_key, worker_pids
from testbed.pkcs11token import change_pin
from testbed.shimmedtoken import ShimmedToken

_ROUNDS = 5
_AWAY_SECONDS = 5.0
_HANG_SECONDS = 10.0
_TIMEOUT_SECONDS = 2.0
_POLL_SECONDS = 0.005
_CKR_SESSION_COUNT = 0xB1
_STABLE_SECONDS = 10.5
"""A worker that lived for ten seconds starts the backoff anew: so each round meets the same conditions."""


class Recovery:
    """A token behind the shim, a Token at it, and a value to be decrypted."""

    def __init__(self, backing: ShimmedToken, token: Token, key: KeyInUse, item: OpenItem) -> None:
        self._backing = backing
        self._shim = backing.shim
        self._token = token
        self._key = key
        self._item = item

    @property
    def faults(self) -> dict[str, Callable[[], Awaitable[float]]]:
        """Name → what lets it happen once; the seconds until all was well."""
        return {
            "directory": self._directory,
            "killed": self._killed,
            "crashed": self._crashed,
            "pin file": self._pin_file,
            "token pin": self._token_pin,
            "sessions": self._sessions,
            "hang": self._hang,
        }

    async def _directory(self) -> float:
        away = self._backing.tokens.with_name("away")
        self._backing.tokens.rename(away)
        if await self._works():
            self._kill()
        await self._fails_for(_AWAY_SECONDS)
        away.rename(self._backing.tokens)
        return await self._recovered()

    async def _killed(self) -> float:
        self._kill()
        return await self._recovered()

    async def _crashed(self) -> float:
        self._shim.set("C_Decrypt", crashes=True, times=1)
        await self._fails_for(0)
        return await self._recovered()

    async def _pin_file(self) -> float:
        right = self._backing.pin_file.read_text()
        self._backing.pin_file.write_text("a-wrong-pin")
        self._kill()
        await self._reaches(TokenState.PIN_INVALID)
        self._backing.pin_file.write_text(right)
        return await self._recovered()

    async def _token_pin(self) -> float:
        new = f"{time.monotonic_ns():032d}"
        await asyncio.to_thread(change_pin, self._backing, new)
        self._kill()
        await self._reaches(TokenState.PIN_INVALID)
        self._backing.pin_file.write_text(new)
        return await self._recovered()

    async def _sessions(self) -> float:
        self._shim.set("C_OpenSession", returns=_CKR_SESSION_COUNT)
        self._kill()
        await self._fails_for(_AWAY_SECONDS)
        self._shim.clear("C_OpenSession")
        return await self._recovered()

    async def _hang(self) -> float:
        self._shim.set("*", hangs=True)
        await self._fails_for(_HANG_SECONDS)
        self._shim.clear("*")
        return await self._recovered()

    def _kill(self) -> None:
        (worker,) = worker_pids()
        os.kill(worker, signal.SIGKILL)

    async def _works(self) -> bool:
        try:
            return await self._key.open(self._item) == b"value"
        except StrongroomError:
            return False

    async def _fails_for(self, seconds: float) -> None:
        """Returns when decrypting has failed at least once, and so many seconds are over."""
        started = time.monotonic()
        while await self._works() or time.monotonic() - started < seconds:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)

    async def _reaches(self, state: TokenState) -> None:
        async with asyncio.timeout(60):
            while self._token.state is not state:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)

    async def _recovered(self) -> float:
        started = time.monotonic()
        async with asyncio.timeout(60):
            while not await self._works():  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - started


@asynccontextmanager
async def _prepared(kind: str, directory: Path) -> AsyncIterator[Recovery]:
    shimmed = ShimmedToken(TOKEN_KINDS[kind](directory / kind, "recovery"), directory / "shim")
    token = Token(hsm_config(shimmed, operationTimeoutSeconds=_TIMEOUT_SECONDS))
    try:
        await token.start()
        key = await make_key(token, KeySpec.AES_256)
        yield Recovery(shimmed, token, key, await key.seal(b"value"))
    finally:
        shimmed.shim.clear()
        await token.close()


async def _run(kind: str) -> dict[str, Any]:
    figures = {}
    with tempfile.TemporaryDirectory() as directory:
        async with _prepared(kind, Path(directory)) as recovery:
            for name, fault in recovery.faults.items():
                taken = []
                for _ in range(_ROUNDS):
                    await asyncio.sleep(_STABLE_SECONDS)
                    taken.append(await fault())
                figures[name] = {"median": round(statistics.median(taken), 2), "longest": round(max(taken), 2)}
                print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--token", choices=("softhsm", "kryoptic"), default="softhsm")
    arguments = parser.parse_args()
    print(json.dumps({"token": arguments.token, **asyncio.run(_run(arguments.token))}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
