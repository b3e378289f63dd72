# SPDX-License-Identifier: Apache-2.0
"""Tells a bad value from a bad token: does something known to be good still decrypt under the same key?

One value is sealed for each key and worker, when first needed, and kept. Bad values come from anybody, and each
encryption is one of the key's 2^32: they must not be able to use those up.
"""

import threading

from strongroom.hsm.aead import AesGcm

PROBE = b"strongroom key verification"
PROBE_AAD = b"strongroom/v1/verification"


class Canaries:
    """The canaries of one worker, by CKA_ID. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sealed: dict[bytes, tuple[bytes, bytes]] = {}

    def works(self, aead: AesGcm, cka_id: bytes, key: int) -> bool:
        """Whether the key's canary decrypts. Raises CkrError and Outcome."""
        nonce, body = self._get(aead, cka_id, key)
        return aead.decrypt(key, nonce, body, PROBE_AAD) == PROBE

    def forget(self, cka_id: bytes) -> None:
        """The key's handle is not known any more: another key may come under this id."""
        with self._lock:
            self._sealed.pop(cka_id, None)

    def _get(self, aead: AesGcm, cka_id: bytes, key: int) -> tuple[bytes, bytes]:
        with self._lock:  # held while sealing, so that two sessions do not seal two
            if cka_id not in self._sealed:
                self._sealed[cka_id] = seal_probe(aead, key)
            return self._sealed[cka_id]


def seal_probe(aead: AesGcm, key: int) -> tuple[bytes, bytes]:
    """A known value under this key: nonce, body. Raises CkrError and Outcome."""
    (nonce,) = aead.nonces(1)
    return nonce, aead.encrypt(key, nonce, bytearray(PROBE), PROBE_AAD)
