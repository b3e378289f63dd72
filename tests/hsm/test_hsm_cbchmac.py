# SPDX-License-Identifier: Apache-2.0
"""AES-CBC with HMAC on a real token, against the same written with `cryptography`."""

import hashlib
import hmac
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from testbed.softhsm import SoftHsmToken
from tests.hsm.aeadtoken import AeadToken

pytestmark = pytest.mark.hsm

AAD = b"additional data"
IV = bytes(range(16))
PLAINTEXT = bytes(range(256)) * 16


@pytest.fixture(scope="module", params=[0, 16, 1000, 2048])
def real(request: pytest.FixtureRequest, token: SoftHsmToken) -> Iterator[AeadToken]:
    """On tokens that take so much in one call."""
    with AeadToken(token, aead="cbc-hmac", maxDataBytes=request.param) as opened:
        yield opened


def _pad(plaintext: bytes) -> bytes:
    padder = PKCS7(128).padder()
    return padder.update(plaintext) + padder.finalize()


def _seal(token: AeadToken, iv: bytes, padded: bytes, aad: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES256(token.key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return ciphertext + _tag(token, iv, ciphertext, aad)


def _tag(token: AeadToken, iv: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    digest = hashlib.sha256(aad + iv + ciphertext + (len(aad) * 8).to_bytes(8, "big")).digest()
    return hmac.digest(token.authentication_key, digest, "sha256")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 999, 1024, 2047, 2048, 4095, 4096])
def test_the_token_and_others_agree(real: AeadToken, size: int) -> None:
    iv, body = real.encrypt(PLAINTEXT[:size], AAD)
    assert (len(iv), len(body)) == (16, (size // 16 + 1) * 16 + 32)
    assert body == _seal(real, iv, _pad(PLAINTEXT[:size]), AAD)
    assert real.decrypt(iv, body, AAD) == PLAINTEXT[:size]
    assert real.decrypt(IV, _seal(real, IV, _pad(PLAINTEXT[:size]), AAD), AAD) == PLAINTEXT[:size]


def test_a_changed_bit_anywhere_is_refused_by_the_tag(real: AeadToken) -> None:
    iv, body = real.encrypt(b"value", AAD)
    for place in range(len(body)):
        forged = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert real.refusal(iv, forged, AAD) == "CKR_SIGNATURE_INVALID"
    assert real.refusal(bytes([iv[0] ^ 1]) + iv[1:], body, AAD) == "CKR_SIGNATURE_INVALID"
    assert real.decrypt(iv, body, AAD) == b"value"


def test_additional_data_and_initial_vector_do_not_run_together(real: AeadToken) -> None:
    body = _seal(real, IV, _pad(b"value"), AAD)
    shifted = AAD + IV[:1]
    assert real.refusal(IV[1:] + body[:1], body[1:-32] + b"\0" + body[-32:], shifted) == "CKR_SIGNATURE_INVALID"
    assert real.refusal(IV, body, AAD + b"\0") == "CKR_SIGNATURE_INVALID"


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param(b"0123456789abcde\0", id="none"),
        pytest.param(b"0123456789abcde\x11", id="more-than-a-block"),
        pytest.param(b"0123456789abc\1\2\3", id="not-all-the-same"),
        pytest.param(bytes(15) + b"\x10", id="a-block-but-its-end"),
        pytest.param(b"\xff" * 32, id="out-of-range"),
    ],
)
def test_wrong_padding_under_a_right_tag_is_an_invalid_ciphertext(real: AeadToken, padded: bytes) -> None:
    assert real.refusal(IV, _seal(real, IV, padded, AAD), AAD) == "InvalidCiphertext"
    assert real.decrypt(IV, _seal(real, IV, _pad(b"value"), AAD), AAD) == b"value"


@pytest.mark.parametrize(
    ("iv_bytes", "body_bytes"),
    [(16, 0), (16, 31), (16, 32), (16, 47), (16, 49), (12, 48), (0, 48), (17, 48)],
)
def test_lengths_that_no_value_has_are_an_invalid_ciphertext(real: AeadToken, iv_bytes: int, body_bytes: int) -> None:
    assert real.refusal(bytes(iv_bytes), bytes(body_bytes), AAD) == "InvalidCiphertext"


def test_right_tag_on_odd_lengths_is_an_invalid_ciphertext(real: AeadToken) -> None:
    for ciphertext in (b"", bytes(15), bytes(17)):
        assert real.refusal(IV, ciphertext + _tag(real, IV, ciphertext, AAD), AAD) == "InvalidCiphertext"


def test_initial_vectors_never_repeat(real: AeadToken) -> None:
    assert len({real.encrypt(b"", AAD)[0] for _ in range(200)}) == 200
