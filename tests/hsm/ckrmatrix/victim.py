# SPDX-License-Identifier: Apache-2.0
"""One Token that suffers one fault after the other, and what became of each."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from strongroom.config import HsmConfig
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import OpenItem, SealItem, Share, Token, TokenState
from strongroom.hsm.ckr import CKR_USER_ALREADY_LOGGED_IN
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext
from testbed.hsmkeys import AAD, KeyInUse, label, make_key, new_ref
from testbed.pkcs11token import change_pin
from testbed.shim import Habits, Shim
from testbed.softhsm import SoftHsmToken

_VALUE = b"value"
_CKM_AES_GCM = 0x1087
_CKR_KEY_HANDLE_INVALID = 0x60
_SEEN = {
    Reason.HSM_UNAVAILABLE: "away",
    Reason.HSM_PIN_INVALID: "pin",
    Reason.HSM_ERROR: "refused",
    Reason.INVALID_CIPHERTEXT: "invalid",
}
_SECONDS = 20


class Victim:
    """Belongs to one test. What is seen is worded as in the table, or says what is wrong with it."""

    def __init__(self, hsm: SoftHsmToken, shim: Shim) -> None:
        self.hsm = hsm
        self.shim = shim
        self.token: Token
        self.key: KeyInUse
        self.item: OpenItem
        self._config: HsmConfig
        self._ends: list[TokenState] = []
        """How each attempt to open the token, and each worker, ended."""

    async def open(self, what: str) -> None:
        """A Token with a key and a value for this row of the table."""
        changes: dict[str, Any] = {}
        if what.endswith("-cbc"):
            self.shim.behave(Habits(hide=(_CKM_AES_GCM,)))
            changes = {"profileChanges": {"aead": "cbc-hmac"}}
        raw = {**self.shim.config(self.hsm.config()), "sessions": 1, **changes}
        self._config = msgspec.convert(raw, HsmConfig)
        await self._start()
        self.key = await make_key(self.token, KeySpec.RSA_3072 if what == "open-rsa" else KeySpec.AES_256)
        self.item = await self.key.seal(_VALUE)
        await self._check_works()

    async def close(self) -> None:
        """Its process ends."""
        self.shim.clear()
        await self.token.close()

    async def suffer(self, what: str, function: str, code: int, *, once: bool) -> str:
        """What the operator sees when this code comes back, and whether all is well afterwards."""
        losses, logins = self.token.statistics.worker_losses, self.shim.calls("C_Login")
        calls = self.shim.calls(function)
        self.shim.set(
            function,
            returns=code,
            times=1 if once else None,
            after=function == "C_Login" and code == CKR_USER_ALREADY_LOGGED_IN,
        )
        try:
            seen = await ACTIONS[what](self)
        except StrongroomError as error:
            seen = _SEEN.get(error.reason, error.reason.value)
        if self.shim.calls(function) == calls:
            return f"{seen}, but {function} was not called"
        if seen in _NO_MORE_LOGINS and (complaint := await self._one_login_only(logins + 1)):
            return complaint
        self.shim.clear()
        if seen in _NO_MORE_LOGINS:
            self._another_pin()
        try:
            async with asyncio.timeout(_SECONDS):
                lost = losses + (seen == "away" and what not in _RESTARTS)
                await self._until(lambda: self.token.available and self.token.statistics.worker_losses >= lost)
                if what == "verify":
                    await self.token.verify(self.key.ref)  # what was refused says nothing good of the key
                await self._check_works()
        except (TimeoutError, AssertionError, StrongroomError) as error:
            return f"{seen}, and afterwards {type(error).__name__} {error}"
        if what not in _RESTARTS and self.token.statistics.worker_losses != lost:
            return f"{seen}, at the cost of {self.token.statistics.worker_losses - losses} workers"
        return seen

    async def restart(self) -> str:
        """The worker is killed; how the next one fares."""
        ends = len(self._ends)
        self.token._exchange.lose("was ended by the test")
        await self._until(lambda: len(self._ends) >= ends + 2)
        match self._ends[ends + 1]:
            case TokenState.AVAILABLE:
                return "ok"
            case TokenState.PIN_INVALID:
                return "pin"
            case _:
                assert self.token.problem is not None
                return "held" if "the next one is in 10 minutes" in self.token.problem.hint else "away"

    async def stop(self) -> str:
        """The Token is closed, and another one opened."""
        worker = self.token._exchange.supervisor.worker
        assert worker is not None
        await self.token.close()
        if worker._process.returncode != 0:
            return f"a worker that ended with {worker._process.returncode}"
        await self._start()
        self.key = KeyInUse(self.token, self.key.ref, self.key.algorithm, self.key.public_key)
        return "ok"

    async def find(self) -> str:
        await self.token.find(self.key.ref.key_id)
        return "ok"

    async def info(self) -> str:
        await self.token.info()
        return "ok"

    async def generate(self, spec: KeySpec = KeySpec.AES_256) -> str:
        await self.token.generate(new_ref(), label(), spec)
        return "ok"

    async def verify(self) -> str:
        await self.token.verify(self.key.ref)
        return "ok"

    async def seal(self) -> str:
        """Two requests of 64 values: initial vectors are drawn for so many at once."""
        for _ in range(2):
            items = [SealItem(Plaintext(_VALUE), AAD)] * 64
            await self.token.seal(self.key.ref, self.key.algorithm, items, share=Share.RECONCILE)
        return "ok"

    async def open_value(self) -> str:
        return "ok" if await self.key.open(self.item) == _VALUE else "another value"

    async def open_anew(self) -> str:
        """The session does not know the key's handle any more."""
        self.shim.set("C_DecryptInit", returns=_CKR_KEY_HANDLE_INVALID, times=1)
        return await self.open_value()

    async def _start(self) -> None:
        self.token = Token(self._config)
        change = self.token._exchange.supervisor._change

        def noted(state: TokenState, problem: StrongroomError | None) -> None:
            change(state, problem)
            self._ends.append(state)

        self.token._exchange.supervisor._change = noted  # type: ignore[method-assign]
        await self.token.start()
        assert self.token.available, self.token.problem

    async def _one_login_only(self, logins: int) -> str:
        """Why not, if the token was asked more often. The PIN file is read every 10 ms."""
        ends = len(self._ends)
        await self._until(lambda: len(self._ends) >= ends + 2)
        asked = self.shim.calls("C_Login")
        return f"{asked - logins + 1} logins with one PIN" if asked != logins else ""

    def _another_pin(self) -> None:
        pin = secrets.token_hex(16)
        change_pin(self.hsm, pin)
        self.hsm.pin_file.write_text(pin)

    async def _check_works(self) -> None:
        assert await self.key.open(self.item) == _VALUE, "another value came back"
        assert await self.key.open(await self.key.seal(_VALUE)) == _VALUE, "another value came back"

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_SECONDS):
            while not condition():  # noqa: ASYNC110 - not every condition comes with an event
                await asyncio.sleep(0.002)


_NO_MORE_LOGINS = ("pin", "held")
_RESTARTS = ("start", "login", "stop")
"""What ends the worker itself."""

ACTIONS: dict[str, Callable[[Victim], Awaitable[str]]] = {
    "start": Victim.restart,
    "login": Victim.restart,
    "stop": Victim.stop,
    "info": Victim.info,
    "find": Victim.find,
    "generate": Victim.generate,
    "generate-rsa": lambda victim: victim.generate(KeySpec.RSA_3072),
    "verify": Victim.verify,
    "seal": Victim.seal,
    "open": Victim.open_value,
    "open-anew": Victim.open_anew,
    "seal-cbc": Victim.seal,
    "open-cbc": Victim.open_value,
    "open-rsa": Victim.open_value,
}
"""What the operator does, by the words of the table."""
