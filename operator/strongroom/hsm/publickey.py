# SPDX-License-Identifier: Apache-2.0
"""Public keys out of a token, checked before anyone encrypts with them."""

from strongroom.envelope import sealing
from strongroom.hsm.wire import FoundKey
from strongroom.model.algorithms import modulus_bytes

_MIN_EXPONENT = 65537
"""Smallest public exponent that NIST SP 800-56B section 6.2 allows."""


class UnsoundKeyError(Exception):
    """What the worker sent is no public key of that spec."""


def sound_public_key(found: FoundKey) -> bytes:
    """DER SubjectPublicKeyInfo (RFC 5280) of an RSA key, empty for AES. Raises UnsoundKeyError unless the modulus is
    odd and exactly as long as the spec says, and the exponent odd and at least 65537."""
    size = modulus_bytes(found.spec)
    if size is None:
        if found.modulus or found.public_exponent:
            raise UnsoundKeyError("an AES key with a modulus")
        return b""
    modulus = int.from_bytes(found.modulus)
    exponent = int.from_bytes(found.public_exponent)
    if modulus.bit_length() != size * 8 or not modulus & 1:
        raise UnsoundKeyError(f"the modulus is not an odd number of {size * 8} bits")
    if exponent < _MIN_EXPONENT or not exponent & 1:
        raise UnsoundKeyError(f"the public exponent is not an odd number of at least {_MIN_EXPONENT}")
    return sealing.public_key_der(found.modulus, found.public_exponent)
