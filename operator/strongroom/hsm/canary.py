# SPDX-License-Identifier: Apache-2.0
"""Tells a bad value from a bad token: does something known to be good still decrypt under the same key?

One value is sealed for each key and worker, when first needed, and kept. Bad values come from anybody, and each
encryption under an AES key is one of its 2^32: they must not be able to use those up.
"""

import threading
from collections.abc import Callable

from strongroom.hsm import wire

PROBE = b"strongroom key verification"
PROBE_AAD = b"strongroom/v1/verification"


class Canaries:
    """The canaries of one worker, by CKA_ID. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sealed: dict[bytes, wire.OpenValue] = {}

    def get(self, cka_id: bytes, seal: Callable[[], wire.OpenValue]) -> wire.OpenValue:
        """The key's canary; `seal` makes it when there is none yet. Raises what that raises."""
        with self._lock:  # held while sealing, so that two sessions do not seal two
            if cka_id not in self._sealed:
                self._sealed[cka_id] = seal()
            return self._sealed[cka_id]

    def forget(self, cka_id: bytes) -> None:
        """The key's handle is not known any more: another key may come under this id."""
        with self._lock:
            self._sealed.pop(cka_id, None)
