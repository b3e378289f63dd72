# SPDX-License-Identifier: Apache-2.0
"""The test's side of aeadprobe.py."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from testbed.softhsm import SoftHsmToken


class AeadToken:
    """Encrypts and decrypts on a SoftHSM token, in a process of its own, under keys whose value is told."""

    def __init__(self, token: SoftHsmToken, **changes: Any) -> None:
        script = Path(__file__).with_name("aeadprobe.py")
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(script), str(token.module), token.label, str(token.pin_file)),
                *("softhsm", json.dumps(changes)),
            ],
            env=token.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.key, self.authentication_key = map(bytes.fromhex, self._answer())

    def __enter__(self) -> "AeadToken":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0

    def encrypt(self, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        nonce, body = self._ask("encrypt", plaintext, aad)
        return bytes.fromhex(nonce), bytes.fromhex(body)

    def decrypt(self, nonce: bytes, body: bytes, aad: bytes) -> bytes:
        (plaintext,) = self._ask("decrypt", nonce, body, aad)
        return bytes.fromhex(plaintext)

    def refusal(self, nonce: bytes, body: bytes, aad: bytes) -> str:
        """Name of what a decryption fails with."""
        (name,) = self._ask("decrypt", nonce, body, aad)
        assert not name or name[0] in "CIR", "it was decrypted"  # CKR_…, InvalidCiphertext, Refused
        return name

    def _ask(self, operation: str, *data: bytes) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([operation, *(part.hex() for part in data)]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        answer: list[str] = json.loads(self._process.stdout.readline())
        return answer
