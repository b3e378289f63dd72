# SPDX-License-Identifier: Apache-2.0
"""A public key out of a token is used only if it is one."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.hsm.publickey import UnsoundKeyError, sound_public_key
from strongroom.hsm.wire import FoundKey
from strongroom.model.keys import KeySpec


def found(spec: KeySpec, modulus: int = 0, exponent: int = 0) -> FoundKey:
    def packed(number: int) -> bytes:
        return number.to_bytes((number.bit_length() + 7) // 8)

    return FoundKey(b"", "", spec, True, packed(modulus), packed(exponent))


def odd(bits: int) -> int:
    return (1 << (bits - 1)) + 1


def test_key_of_a_token_is_what_it_was() -> None:
    numbers = rsa.generate_private_key(65537, 3072).public_key().public_numbers()
    read = load_der_public_key(sound_public_key(found(KeySpec.RSA_3072, numbers.n, numbers.e)))
    assert isinstance(read, rsa.RSAPublicKey)
    assert read.public_numbers() == numbers


def test_aes_key_has_none() -> None:
    assert sound_public_key(found(KeySpec.AES_256)) == b""


@pytest.mark.parametrize(
    ("spec", "modulus", "exponent"),
    [
        pytest.param(KeySpec.RSA_3072, odd(2048), 65537, id="shorter-than-its-spec"),
        pytest.param(KeySpec.RSA_3072, odd(3071), 65537, id="a-bit-shorter"),
        pytest.param(KeySpec.RSA_3072, odd(3073), 65537, id="a-bit-longer"),
        pytest.param(KeySpec.RSA_3072, odd(4096), 65537, id="longer-than-its-spec"),
        pytest.param(KeySpec.RSA_4096, odd(3072), 65537, id="of-the-other-spec"),
        pytest.param(KeySpec.RSA_3072, odd(3072) + 1, 65537, id="even-modulus"),
        pytest.param(KeySpec.RSA_3072, 0, 65537, id="no-modulus"),
        pytest.param(KeySpec.RSA_3072, odd(3072), 0, id="no-exponent"),
        pytest.param(KeySpec.RSA_3072, odd(3072), 1, id="exponent-that-encrypts-nothing"),
        pytest.param(KeySpec.RSA_3072, odd(3072), 3, id="small-exponent"),
        pytest.param(KeySpec.RSA_3072, odd(3072), 65535, id="exponent-just-too-small"),
        pytest.param(KeySpec.RSA_3072, odd(3072), 65538, id="even-exponent"),
        pytest.param(KeySpec.AES_256, odd(3072), 65537, id="aes-with-a-modulus"),
        pytest.param(KeySpec.AES_256, 0, 65537, id="aes-with-an-exponent"),
    ],
)
def test_what_is_no_key_of_its_spec_is_refused(spec: KeySpec, modulus: int, exponent: int) -> None:
    with pytest.raises(UnsoundKeyError):
        sound_public_key(found(spec, modulus, exponent))
