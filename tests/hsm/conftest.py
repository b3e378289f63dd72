# SPDX-License-Identifier: Apache-2.0
"""A real token, the façade in front of it, and an outsider at the same token."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from strongroom.config import HsmConfig
from strongroom.hsm import process
from strongroom.hsm.api import KeyLabel, Token
from strongroom.hsm.label import pack_id
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from testbed.softhsm import SoftHsmToken
from tests.hsm.faults import Faults

OpenToken = Callable[..., Awaitable[Token]]


def new_ref(version: int = 1) -> KeyVersionRef:
    return KeyVersionRef(KeyId(uuid.uuid4()), KeyVersion(version))


@pytest.fixture
async def open_token(new_token: SoftHsmToken) -> AsyncIterator[OpenToken]:
    """Starts a Token at the test's own SoftHSM token, with these settings changed; closed at the end."""
    async with AsyncExitStack() as stack:

        async def start(on_change: Callable[[Token], None] = lambda token: None, **changed: Any) -> Token:
            raw = {**new_token.config(), **changed}
            token = Token(msgspec.convert(raw, HsmConfig), on_change=lambda: on_change(token))
            stack.push_async_callback(token.close)
            await token.start()
            return token

        yield start


@pytest.fixture
async def hsm(open_token: OpenToken) -> Token:
    """An available Token with two sessions."""
    token = await open_token()
    assert token.available, token.problem
    return token


@pytest.fixture
def make_key() -> Callable[[Token], Awaitable[KeyVersionRef]]:
    """Generates a key through a Token."""

    async def make(token: Token) -> KeyVersionRef:
        ref = new_ref()
        created = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)
        await token.generate(ref, KeyLabel("0123456789abcdef", "prod", ref.version, created))
        return ref

    return make


@pytest.fixture
async def key(hsm: Token, make_key: Callable[[Token], Awaitable[KeyVersionRef]]) -> KeyVersionRef:
    """A key in `hsm`."""
    return await make_key(hsm)


@pytest.fixture
def outsider(new_token: SoftHsmToken) -> Callable[[str, KeyVersionRef], str]:
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
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Workers with a library that misbehaves as told. To be asked for before `hsm` or `open_token` is used."""
    directory = tmp_path / "faults"
    directory.mkdir()
    script = Path(__file__).with_name("faultyworker.py")
    monkeypatch.setattr(process, "WORKER", ("-I", str(script), str(directory)))
    return Faults(directory)


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
        worker = token._supervisor.worker
        assert worker is not None, token.problem
        return worker.pid

    return pid
