# SPDX-License-Identifier: Apache-2.0
"""AES-GCM towards a library that SoftHSM is not: one that reads the parameters late."""

import gc
import weakref
from typing import Any, cast

from pkcs11.types import Session

from strongroom.hsm.aead import AesGcm
from strongroom.hsm.module import Functions


class LateLibrary:
    """Keeps nothing of CK_MECHANISM but its address until the second call; sees whether it is still there."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def encrypt_init(self, session: int, mechanism: Any, key: int) -> None:
        self._mechanism = weakref.ref(mechanism._obj)

    decrypt_init = encrypt_init

    def encrypt(self, session: int, data: Any, size: int, output: Any, length: Any) -> None:
        self._look()
        length._obj.value = size + 16

    def decrypt(self, session: int, data: Any, size: int, output: Any, length: Any) -> None:
        self._look()
        length._obj.value = size - 16

    def _look(self) -> None:
        gc.collect()
        self.seen.append(self._mechanism() is not None)


class OneSession:
    handle = 1


def test_parameters_are_there_until_the_second_call_has_returned() -> None:
    library = LateLibrary()
    aead = AesGcm(cast(Functions, library), cast(Session, OneSession()))
    aead.encrypt(1, bytes(12), bytearray(b"value"), b"aad")
    aead.decrypt(1, bytes(12), bytes(16), b"aad")
    assert library.seen == [True, True]
