# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802 - functions of PKCS#11 are named as it names them
"""AES-GCM on a real token, and towards libraries that SoftHSM is not: those that make initial vectors, well or badly,
read parameters late, or answer with odd lengths."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom import profiles
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.cryptoki import CkrError, Functions, GcmParameters, KeyHandles, Mechanism
from strongroom.hsm.outcome import Outcome
from strongroom.hsm.wire import Failure
from strongroom.profiles import IvSource
from testbed.softhsm import SoftHsmToken
from tests.hsm.aeadtoken import AeadToken

KEY = AESGCM(bytes(range(32)))
KEYS = KeyHandles(7)
AAD = b"additional data"
SIZES = (0, 1, 15, 16, 17, 1024, 4095, 4096)
CKR_ENCRYPTED_DATA_INVALID = 0x40
CKM_VENDOR_GCM = 0x80001087


@pytest.fixture(scope="module")
def real(token: SoftHsmToken) -> Iterator[AeadToken]:
    with AeadToken(token) as opened:
        yield opened


@pytest.mark.hsm
@pytest.mark.parametrize("size", SIZES)
def test_the_token_and_others_agree(real: AeadToken, size: int) -> None:
    plaintext = bytes(range(256)) * 16
    nonce, body = real.encrypt(plaintext[:size], AAD)
    elsewhere = AESGCM(real.key)
    assert elsewhere.decrypt(nonce, body, AAD) == plaintext[:size]
    assert (len(nonce), len(body)) == (12, size + 16)
    for iv in (bytes(range(12)), bytes(range(16))):
        assert real.decrypt(iv, elsewhere.encrypt(iv, plaintext[:size], AAD), AAD) == plaintext[:size]


@pytest.mark.hsm
def test_a_forged_value_is_refused_and_the_next_is_decrypted(real: AeadToken) -> None:
    nonce, body = real.encrypt(b"value", AAD)
    forged = bytes([body[0] ^ 1]) + body[1:]
    for bad in ((nonce, forged, AAD), (nonce, body, b"other"), (bytes(12), body, AAD), (nonce, body[:-1], AAD)):
        assert real.refusal(*bad).startswith("CKR_")
        assert real.decrypt(nonce, body, AAD) == b"value"


@pytest.mark.hsm
def test_nonces_of_our_own_never_repeat_beyond_a_batch(real: AeadToken) -> None:
    nonces = {real.encrypt(b"", AAD)[0] for _ in range(200)}
    assert len(nonces) == 200


@pytest.mark.hsm
def test_nonces_of_16_bytes(token: SoftHsmToken) -> None:
    with AeadToken(token, ivBytes=16) as real:
        nonce, body = real.encrypt(b"value", AAD)
        assert len(nonce) == 16
        assert AESGCM(real.key).decrypt(nonce, body, AAD) == b"value"


class VendorLibrary:
    """AES-GCM of a library that makes its initial vectors as told, with what it says it made. It looks at the
    parameters in the second call, as some do."""

    def __init__(self, source: IvSource, iv_bytes: int, ivs: Callable[[int], bytes] = lambda n: bytes([n + 1]) * 16):
        self.source = source
        self.iv_bytes = iv_bytes
        self.ivs = ivs
        self.made = 0
        self.calls: list[str] = []
        self.too_many = 0
        """How many bytes too many it says it wrote."""

    def C_EncryptInit(self, session: Any, mechanism: Any, key: int) -> int:
        return self._init(session, mechanism, key)

    def C_DecryptInit(self, session: Any, mechanism: Any, key: int) -> int:
        return self._init(session, mechanism, key)

    def _init(self, session: Any, mechanism: Any, key: int) -> int:
        self.calls.append("init")
        assert (session.value, key) == (3, KEYS.main)
        self._mechanism = mechanism.value
        return 0

    def C_Encrypt(self, session: Any, data: Any, size: Any, output: Any, length: Any) -> int:
        parameters = self._parameters()
        plaintext = ctypes.string_at(data, size.value)
        aad = ctypes.string_at(parameters.aad, parameters.aad_length)
        if self.source is IvSource.HOST:
            iv = ctypes.string_at(parameters.iv, parameters.iv_length)
            self._answer(KEY.encrypt(iv, plaintext, aad), output, length)
            return 0
        iv = self.ivs(self.made)[: self.iv_bytes]
        self.made += 1
        body = KEY.encrypt(iv if any(iv) else bytes(self.iv_bytes), plaintext, aad)
        if self.source is IvSource.ZERO_BUFFER:
            assert ctypes.string_at(parameters.iv, parameters.iv_length) == bytes(self.iv_bytes)
            ctypes.memmove(parameters.iv, iv, self.iv_bytes)
            self._answer(body, output, length)
        else:
            assert (parameters.iv, parameters.iv_length, parameters.iv_bits) == (None, 0, self.iv_bytes * 8)
            self._answer(iv + body if self.source is IvSource.PREPENDED else body + iv, output, length)
        return 0

    def C_Decrypt(self, session: Any, data: bytes, size: Any, output: Any, length: Any) -> int:
        parameters = self._parameters()
        body = data[: size.value]
        if self.source is IvSource.PREPENDED:
            assert parameters.iv is None
            iv, body = body[: self.iv_bytes], body[self.iv_bytes :]
        else:
            iv = ctypes.string_at(parameters.iv, parameters.iv_length)
            assert parameters.iv_bits == len(iv) * 8
        try:
            plaintext = KEY.decrypt(iv, body, ctypes.string_at(parameters.aad, parameters.aad_length))
        except InvalidTag:
            raise CkrError(CKR_ENCRYPTED_DATA_INVALID) from None
        self._answer(plaintext, output, length)
        return 0

    def C_GenerateRandom(self, session: Any, output: Any, size: int) -> int:
        self.calls.append("random")
        return 0

    def _parameters(self) -> GcmParameters:
        self.calls.append("operation")
        mechanism = Mechanism.from_address(self._mechanism)
        assert (mechanism.mechanism, mechanism.parameter_length) == (CKM_VENDOR_GCM, ctypes.sizeof(GcmParameters))
        parameters = GcmParameters.from_address(mechanism.parameter)
        assert parameters.tag_bits == 128
        return parameters

    def _answer(self, data: bytes, output: Any, length: Any) -> None:
        room = ctypes.c_ulong.from_address(length.value)
        assert len(data) <= room.value
        ctypes.memmove(output, data, len(data))
        room.value = len(data) + self.too_many
        self.output = output


def _aead(library: VendorLibrary) -> AesGcm:
    changes = {"ivSource": library.source.value, "ivBytes": library.iv_bytes, "gcmMechanism": CKM_VENDOR_GCM}
    return AesGcm(cast(Functions, library), 3, profiles.load("generic", changes))


every_habit = pytest.mark.parametrize(
    ("source", "iv_bytes"), [(source, size) for source in IvSource for size in (12, 16)]
)
token_makes_it = pytest.mark.parametrize("source", [source for source in IvSource if source is not IvSource.HOST])


@every_habit
@pytest.mark.parametrize("size", SIZES)
def test_initial_vectors_are_found_wherever_the_token_puts_them(source: IvSource, iv_bytes: int, size: int) -> None:
    aead = _aead(VendorLibrary(source, iv_bytes))
    plaintext = bytes(range(256)) * 16
    for _ in range(3):
        nonce, body = aead.encrypt(KEYS, bytearray(plaintext[:size]), AAD)
        assert (len(nonce), len(body)) == (iv_bytes, size + 16)
        assert KEY.decrypt(nonce, body, AAD) == plaintext[:size]
        assert aead.decrypt(KEYS, nonce, body, AAD) == plaintext[:size]


@token_makes_it
@pytest.mark.parametrize(
    "ivs",
    [
        pytest.param(lambda n: bytes(16) if n else b"\1" * 16, id="none-made"),
        pytest.param(lambda n: b"\1" * 16, id="the-last-again"),
    ],
)
def test_an_initial_vector_that_is_not_new_is_refused(source: IvSource, ivs: Callable[[int], bytes]) -> None:
    aead = _aead(VendorLibrary(source, 12, ivs))
    aead.encrypt(KEYS, bytearray(b"value"), AAD)
    with pytest.raises(Outcome) as refused:
        aead.encrypt(KEYS, bytearray(b"value"), AAD)
    assert refused.value.failed.failure is Failure.REFUSED


@every_habit
@pytest.mark.parametrize("too_many", [-5, -1, 1, 12, 2**40])
def test_an_answer_of_the_wrong_length_is_refused(source: IvSource, iv_bytes: int, too_many: int) -> None:
    library = VendorLibrary(source, iv_bytes)
    aead = _aead(library)
    nonce, body = aead.encrypt(KEYS, bytearray(b"value"), AAD)
    library.too_many = too_many
    for attempt in (
        lambda: aead.encrypt(KEYS, bytearray(b"value"), AAD),
        lambda: aead.decrypt(KEYS, nonce, body, AAD),
    ):
        with pytest.raises(Outcome) as refused:
            cast(Any, attempt)()
        assert refused.value.failed.failure is Failure.REFUSED


def test_a_token_without_randomness_still_gives_fresh_nonces() -> None:
    aead = _aead(VendorLibrary(IvSource.HOST, 12))  # its C_GenerateRandom writes nothing
    assert len({aead.encrypt(KEYS, bytearray(), AAD)[0] for _ in range(200)}) == 200


def test_a_value_costs_two_calls() -> None:
    library = VendorLibrary(IvSource.HOST, 12)
    aead = _aead(library)
    aead.encrypt(KEYS, bytearray(b"first"), AAD)
    del library.calls[:]
    for _ in range(63):
        aead.encrypt(KEYS, bytearray(b"value"), AAD)
    assert library.calls == ["init", "operation"] * 63
    aead.encrypt(KEYS, bytearray(b"value"), AAD)
    assert library.calls[63 * 2 :] == ["random", "init", "operation"]


@every_habit
def test_nothing_of_a_value_stays_in_our_buffers(source: IvSource, iv_bytes: int) -> None:
    library = VendorLibrary(source, iv_bytes)
    aead = _aead(library)
    nonce, body = aead.encrypt(KEYS, bytearray(b"secret" * 600), AAD)
    opened = aead.decrypt(KEYS, nonce, body, AAD)
    assert ctypes.string_at(library.output, 4096) == bytes(4096)
    assert bytes(aead._input.view) == bytes(4096)
    assert opened == b"secret" * 600
    with pytest.raises(CkrError):
        aead.decrypt(KEYS, nonce, body, b"other")
    assert ctypes.string_at(library.output, 4096) == bytes(4096)


def test_more_than_fits_is_not_written() -> None:
    aead = _aead(VendorLibrary(IvSource.HOST, 12))
    with pytest.raises(ValueError):
        aead.encrypt(KEYS, bytearray(4097), AAD)
    with pytest.raises(ValueError):
        aead.encrypt(KEYS, bytearray(1), bytes(8193))
