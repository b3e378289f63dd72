# SPDX-License-Identifier: Apache-2.0
"""What ends a request early, inside a worker."""

from strongroom.hsm import ckr, wire


class Outcome(Exception):
    """Ends a request with this answer."""

    def __init__(self, failure: wire.Failure, code: int = ckr.CKR_OK, *, index: int = 0) -> None:
        super().__init__(failure.value)
        self.failed = wire.Failed(failure, code, index)
