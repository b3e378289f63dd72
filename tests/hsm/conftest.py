# SPDX-License-Identifier: Apache-2.0
"""A real token, the façade in front of it, and an outsider at the same token."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.config import HsmConfig
from strongroom.hsm.api import Token
from strongroom.hsm.label import pack_id
from strongroom.model.ids import KeyVersionRef
from strongroom.model.keys import KeySpec
from testbed import hsmkeys
from testbed.hsmkeys import KeyInUse
from testbed.pkcs11token import Pkcs11Token
from testbed.shim import Shim

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]


@pytest.fixture
def token_config(new_token: Pkcs11Token) -> dict[str, Any]:
    """The test's own token as an entry of `hsms` in the operator's configuration."""
    return new_token.config()


@pytest.fixture
async def open_token(token_config: dict[str, Any]) -> AsyncIterator[OpenToken]:
    """Starts a Token at the test's own token, with these settings changed; closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(on_change: Callable[[Token], None] = lambda token: None, **changed: Any) -> Token:
            raw = {**token_config, **changed}
            token = Token(msgspec.convert(raw, HsmConfig), on_change=lambda: on_change(token))
            stack.push_async_callback(token.close)
            await token.start()
            return token

        yield start


@pytest.fixture
async def hsm(open_token: OpenToken) -> Token:
    """An available Token with two sessions for values."""
    token = await open_token(sessions=2)
    assert token.available, token.problem
    return token


@pytest.fixture
def make_key() -> MakeKey:
    """Generates a key through a Token."""

    async def make(token: Token, spec: KeySpec = KeySpec.AES_256) -> KeyInUse:
        return await hsmkeys.make_key(token, spec, refused=False)

    return make


@pytest.fixture
async def key(hsm: Token, make_key: MakeKey) -> KeyInUse:
    """An AES key in `hsm`."""
    return await make_key(hsm)


@pytest.fixture
def outsider(new_token: Pkcs11Token) -> Callable[[str, KeyVersionRef], str]:
    """Runs an action of outsider.py on a key version; its output."""

    def run(action: str, ref: KeyVersionRef) -> str:
        script = Path(__file__).with_name("outsider.py")
        arguments = [action, str(new_token.module), new_token.label, str(new_token.pin_file), pack_id(ref).hex()]
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env=new_token.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run


@pytest.fixture
def shim(new_token: Pkcs11Token, token_config: dict[str, Any], tmp_path: Path) -> Shim:
    """The shim in front of the test's own token. To be asked for before `hsm` or `open_token` is used."""
    directory = tmp_path / "shim"
    directory.mkdir()
    shim = Shim(directory, new_token.module)
    token_config.update(shim.config(token_config))
    return shim


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits until a condition holds, 30 s at most."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - not every condition comes with an event
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture
def pid_of() -> Callable[[Token], int]:
    """Process id of a Token's worker."""

    def pid(token: Token) -> int:
        worker = token._exchange.supervisor.worker
        assert worker is not None, token.problem
        return worker.pid

    return pid
