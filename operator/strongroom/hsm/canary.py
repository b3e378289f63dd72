# SPDX-License-Identifier: Apache-2.0
"""Tells a bad value from a bad token: does something known to be good still decrypt under the same key?

One value is sealed for each key, algorithm and worker, when first needed, and kept. Bad values come from anybody, and
each encryption under an AES key is one of its 2^32: they must not be able to use those up.
"""

import threading
from collections.abc import Callable

from strongroom.hsm import wire
from strongroom.model.algorithms import Algorithm

PROBE = b"strongroom key verification"
PROBE_AAD = b"strongroom/v1/verification"


class Canaries:
    """The canaries of one worker. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sealed: dict[tuple[bytes, Algorithm], wire.OpenValue] = {}

    def get(self, cka_id: bytes, algorithm: Algorithm, seal: Callable[[], wire.OpenValue]) -> wire.OpenValue:
        """The key's canary; `seal` makes it when there is none yet. Raises what that raises."""
        with self._lock:  # held while sealing, so that two sessions do not seal two
            if (cka_id, algorithm) not in self._sealed:
                self._sealed[cka_id, algorithm] = seal()
            return self._sealed[cka_id, algorithm]

    def forget(self, cka_id: bytes) -> None:
        """The key's handle is not known any more: another key may come under this id."""
        with self._lock:
            for known in [known for known in self._sealed if known[0] == cka_id]:
                del self._sealed[known]
