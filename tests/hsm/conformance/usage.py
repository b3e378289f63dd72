# SPDX-License-Identifier: Apache-2.0
"""Using a key of either kind as the operator does: AES in the token, RSA with the public key and the token."""

import uuid
from datetime import UTC, datetime

import pytest

from strongroom.envelope.sealing import seal_with_public_key
from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import KeyLabel, OpenItem, SealItem, Share, Token
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext

AAD = b"strongroom/v1 additional data"
CREATED = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)


def new_ref(version: int = 1) -> KeyVersionRef:
    return KeyVersionRef(KeyId(uuid.uuid4()), KeyVersion(version))


def label(version: int = 1, cluster: str = "0123456789abcdef") -> KeyLabel:
    return KeyLabel(cluster, "prod", KeyVersion(version), CREATED)


class KeyInUse:
    """One key version and its algorithm, in a Token."""

    def __init__(self, token: Token, ref: KeyVersionRef, algorithm: Algorithm, public_key: bytes) -> None:
        self.token = token
        self.ref = ref
        self.algorithm = algorithm
        self.public_key = public_key

    async def seal(self, plaintext: bytes, aad: bytes = AAD) -> OpenItem:
        """The encrypted value, ready to be opened."""
        if self.public_key:
            wrapped, nonce, body = seal_with_public_key(self.public_key, self.algorithm, plaintext, lambda _: aad)
            return OpenItem(nonce, body, aad, "value", wrapped)
        items = [SealItem(Plaintext(plaintext), aad)]
        (sealed,) = await self.token.seal(self.ref, self.algorithm, items, share=Share.API)
        return OpenItem(sealed.nonce, sealed.body, aad, "value")

    async def open(self, item: OpenItem, share: Share = Share.RECONCILE) -> bytes:
        """The plaintext."""
        (plaintext,) = await self.token.open(self.ref, self.algorithm, [item], share=share)
        return plaintext.reveal()


async def make_key(token: Token, spec: KeySpec, *, refused: bool) -> KeyInUse:
    """A new key; with `refused`, one that the token made and the operator must not accept."""
    ref, algorithm = new_ref(), token.algorithm(spec)
    assert algorithm is not None, f"{spec} is not for this token"
    if refused:
        with pytest.raises(StrongroomError) as caught:
            await token.generate(ref, label(), spec)
        assert caught.value.reason is Reason.HSM_ERROR
    else:
        await token.generate(ref, label(), spec)
    public_key = await token.public_key(ref) if spec.asymmetric else b""
    return KeyInUse(token, ref, algorithm, public_key)
