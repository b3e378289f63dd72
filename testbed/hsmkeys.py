# SPDX-License-Identifier: Apache-2.0
"""Keys of both kinds, used as the operator uses them: through a Token."""

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from strongroom.config import HsmConfig
from strongroom.envelope.sealing import seal_with_public_key
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import KeyLabel, OpenItem, SealItem, Share, Token
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext
from testbed.kryoptic import KryopticToken
from testbed.nss import NssToken
from testbed.pkcs11token import Pkcs11Token
from testbed.softhsm import SoftHsmToken

TOKEN_KINDS: dict[str, Callable[[Path, str], Pkcs11Token]] = {
    "softhsm": SoftHsmToken,
    "kryoptic": KryopticToken,
    "nss": NssToken,
}
"""Name → what makes such a token in a directory, with a label."""

AAD = b"strongroom/v1 additional data"
_CREATED = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)


def new_ref(version: int = 1) -> KeyVersionRef:
    """A key version that no token has."""
    return KeyVersionRef(KeyId(uuid.uuid4()), KeyVersion(version))


def label(version: int = 1) -> KeyLabel:
    """What every key made here is marked with."""
    return KeyLabel("0123456789abcdef", "prod", KeyVersion(version), _CREATED)


class KeyInUse:
    """One key version and its algorithm, in a Token."""

    def __init__(self, token: Token, ref: KeyVersionRef, algorithm: Algorithm, public_key: bytes = b"") -> None:
        self.token = token
        self.ref = ref
        self.algorithm = algorithm
        self.public_key = public_key

    async def seal(self, plaintext: bytes, aad: bytes = AAD, *, share: Share = Share.API) -> OpenItem:
        """The encrypted value, ready to be opened."""
        if self.public_key:
            wrapped, nonce, body = seal_with_public_key(self.public_key, self.algorithm, plaintext, lambda _: aad)
            return OpenItem(nonce, body, aad, "value", wrapped)
        items = [SealItem(Plaintext(plaintext), aad)]
        (sealed,) = await self.token.seal(self.ref, self.algorithm, items, share=share)
        return OpenItem(sealed.nonce, sealed.body, aad, "value")

    async def open(self, item: OpenItem, *, share: Share = Share.RECONCILE) -> bytes:
        """The plaintext."""
        (plaintext,) = await self.token.open(self.ref, self.algorithm, [item], share=share)
        return plaintext.reveal()


async def make_key(token: Token, spec: KeySpec, *, refused: bool = False) -> KeyInUse:
    """A new key; with `refused`, one that the token makes and that must be refused, to be used all the same."""
    ref, algorithm = new_ref(), token.algorithm(spec)
    assert algorithm is not None, f"{spec} is not for this token"
    try:
        await token.generate(ref, label(), spec)
    except StrongroomError as error:
        if not refused or error.reason is not Reason.HSM_ERROR:
            raise
    else:
        assert not refused, f"{spec} was to be refused"
    return KeyInUse(token, ref, algorithm, await token.public_key(ref) if spec.asymmetric else b"")


def hsm_config(token: Pkcs11Token, **changed: object) -> HsmConfig:
    """The token in the operator's configuration, with these settings changed (names as in the file)."""
    return msgspec.convert({**token.config(), **changed}, HsmConfig)


def worker_pids() -> list[int]:
    """The processes that this one's Tokens have started."""
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
