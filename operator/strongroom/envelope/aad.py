# SPDX-License-Identifier: Apache-2.0
"""The additional authenticated data of a blob: what its tag binds it to (docs/format.md)."""

from collections.abc import Sequence

from strongroom.model.binding import Binding

_DOMAIN = b"strongroom/v1"


def additional_data(header: bytes, binding: Binding) -> bytes:
    """AAD for one value: `header` is every blob byte before the nonce. Never empty, so SoftHSM builds that crash
    without additional data (upstream issue 664) are safe."""
    namespace, name = binding.place
    pieces = [
        _DOMAIN,
        binding.purpose.value.encode(),
        header,
        binding.scope.value.encode(),
        namespace.encode(),
        name.encode(),
        binding.data_key.encode(),
    ]
    for key, value in binding.context.pairs:
        pieces += (key.encode(), value.encode())
    return _pre_authentication_encoding(pieces)


def _pre_authentication_encoding(pieces: Sequence[bytes]) -> bytes:
    """PASETO's PAE: the count, then each piece with its length, all as 64-bit little-endian integers, so that no two
    lists of pieces give the same bytes."""
    encoded = [len(pieces).to_bytes(8, "little")]
    for piece in pieces:
        encoded += (len(piece).to_bytes(8, "little"), piece)
    return b"".join(encoded)
