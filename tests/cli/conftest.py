# SPDX-License-Identifier: Apache-2.0
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from strongroom.cli.main import run
from tests.cli.fakeapi import FakeApi


@dataclass
class Result:
    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeApi]:
    fake = FakeApi(tmp_path_factory.mktemp("fakeapi"))
    yield fake
    fake.close()


@pytest.fixture
def api(server: FakeApi) -> FakeApi:
    server.reset()
    return server


@pytest.fixture
def cli(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Cli:
    """Run the command line in this process, in an empty directory, with a kubeconfig for the fake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    def call(*arguments: str, stdin: bytes | str = b"", kubeconfig: bool = True) -> Result:
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        before = ["--kubeconfig", str(api.kubeconfig)] if kubeconfig else []
        code = run([*before, *arguments])
        captured = capsysbinary.readouterr()
        return Result(int(code), captured.out, captured.err.decode())

    return call
