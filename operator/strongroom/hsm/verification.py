# SPDX-License-Identifier: Apache-2.0
"""Proves how a key behaves: it cannot leave the token, and what was altered does not decrypt.

Attributes alone prove nothing: there are tokens that report EXTRACTABLE = false and wrap the key all the same.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator

from strongroom.hsm import ckr, wire
from strongroom.hsm.canary import PROBE
from strongroom.hsm.ciphers import Ciphers
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import (
    CKA_CLASS,
    CKA_DECRYPT,
    CKA_DERIVE,
    CKA_ENCRYPT,
    CKA_EXTRACTABLE,
    CKA_KEY_TYPE,
    CKA_PRIVATE_EXPONENT,
    CKA_SENSITIVE,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_TOKEN,
    CKA_UNWRAP,
    CKA_VALUE,
    CKA_VALUE_LEN,
    CKA_WRAP,
    CKK_AES,
    CKM_AES_CBC_PAD,
    CKM_AES_KEY_GEN,
    CKM_AES_KEY_WRAP,
    CKM_AES_KEY_WRAP_KWP,
    CKM_AES_KEY_WRAP_PAD,
    CKO_SECRET_KEY,
    Attribute,
    CkrError,
    CryptokiSession,
    Mechanism,
    ulong,
)
from strongroom.hsm.keystore import AES_KEY_BYTES, StoredKey
from strongroom.hsm.module import OpenToken
from strongroom.hsm.outcome import Outcome
from strongroom.model.keys import KeySpec

_WRAP_MECHANISMS = (CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_KWP, CKM_AES_CBC_PAD)
"""The last is meant for data, and wraps as well."""
_WRAPPED_BYTES = 4096
"""Room for any key wrapped: an RSA-4096 private key takes 2.4 KB."""
_WRAPPING_KEY = {
    CKA_CLASS: CKO_SECRET_KEY,
    CKA_KEY_TYPE: CKK_AES,
    CKA_VALUE_LEN: AES_KEY_BYTES,
    CKA_TOKEN: False,
    CKA_SENSITIVE: True,
    CKA_EXTRACTABLE: False,
    CKA_WRAP: True,
}
_UNUSABLE = frozenset({CkrClass.SESSION, CkrClass.LOGIN, CkrClass.DEVICE, CkrClass.HANDLE})
"""What is no refusal: the token did not get as far as refusing."""


class Verification:
    """Of keys on one session. Not for two threads at a time. Raises CkrError, and Outcome for what is not as it should
    be."""

    def __init__(self, token: OpenToken, session: CryptokiSession, ciphers: Ciphers) -> None:
        self._token = token
        self._session = session
        self._ciphers = ciphers

    def prove(self, key: StoredKey) -> None:
        """All of the below, in this order."""
        self._check_length(key)
        for handle, must_be_false, secret in _objects(key):
            self._check_attributes(handle, must_be_false)
            self._check_unreadable(handle, secret)
            self._check_unwrappable(handle)
        if key.spec.asymmetric:
            self._check_own_key_stays_inside(key)
        self._check_authenticates(key)

    def _check_length(self, key: StoredKey) -> None:
        """An AES key of 256 bits. Of RSA the modulus says it."""
        if key.spec is KeySpec.AES_256:
            length = self._session.read(key.handles.main, CKA_VALUE_LEN)[0]
            if length and int.from_bytes(length, sys.byteorder) != AES_KEY_BYTES:
                raise Outcome(wire.Failure.ATTRIBUTES_UNSAFE)

    def _check_attributes(self, handle: int, must_be_false: tuple[int, ...]) -> None:
        sensitive, *others = self._session.read(handle, CKA_SENSITIVE, CKA_EXTRACTABLE, *must_be_false)
        if not any(sensitive) or any(map(any, others)):  # a CK_BBOOL is true if its byte is not 0
            raise Outcome(wire.Failure.ATTRIBUTES_UNSAFE)

    def _check_unreadable(self, handle: int, attribute: int) -> None:
        value = ctypes.create_string_buffer(1024)
        template = Attribute(attribute, ctypes.addressof(value), len(value))
        functions, session = self._session.functions, self._session.handle
        try:
            if _refused(lambda: functions.C_GetAttributeValue(session, handle, ctypes.byref(template), 1)):
                return
        finally:
            ctypes.memset(value, 0, len(value))
        if 0 < template.length <= len(value):  # some tokens return CKR_OK with CK_UNAVAILABLE_INFORMATION
            raise Outcome(wire.Failure.VALUE_READABLE)

    def _check_unwrappable(self, handle: int) -> None:
        """Wrap it with a key made for that, by every mechanism for it that the token has."""
        offered = self._token.mechanisms()
        mechanisms = [mechanism for mechanism in _WRAP_MECHANISMS if mechanism in offered]
        if not mechanisms:
            return
        made: list[int] = []
        if _refused(lambda: made.append(self._session.generate_key(CKM_AES_KEY_GEN, _WRAPPING_KEY))):
            return  # a token that makes no wrapping keys wraps nothing
        (wrapping,) = made
        with self._session.temporary(wrapping):
            for mechanism in mechanisms:
                if self._wraps(mechanism, wrapping, handle):
                    raise Outcome(wire.Failure.KEY_WRAPPABLE)

    def _wraps(self, mechanism: int, wrapping: int, handle: int) -> bool:
        wrapped = ctypes.create_string_buffer(_WRAPPED_BYTES)
        length = ulong(len(wrapped))
        iv = (ctypes.c_ubyte * 16)() if mechanism == CKM_AES_CBC_PAD else None
        by = Mechanism(mechanism, iv)
        arguments = (self._session.handle, ctypes.byref(by), wrapping, handle, wrapped, ctypes.byref(length))
        try:
            return not _refused(lambda: self._session.functions.C_WrapKey(*arguments))
        finally:
            ctypes.memset(wrapped, 0, len(wrapped))

    def _check_own_key_stays_inside(self, key: StoredKey) -> None:
        """The key that a sealed value brings along is as unreadable as the one that unwraps it."""
        algorithm = self._ciphers.algorithm(key)
        probe = self._ciphers.seal_probe(key, algorithm)
        own_key = self._ciphers.rsa.unwrap(key, algorithm, probe.wrapped_key)
        with self._session.temporary(own_key):
            self._check_unreadable(own_key, CKA_VALUE)
            self._check_unwrappable(own_key)

    def _check_authenticates(self, key: StoredKey) -> None:
        algorithm = self._ciphers.algorithm(key)
        probe = self._ciphers.seal_probe(key, algorithm)
        if probe.body.startswith(PROBE) or not self._ciphers.opens_probe(key, algorithm, probe):
            raise Outcome(wire.Failure.TAMPERING_ACCEPTED)
        for altered in _alterations(probe):
            if not _refused(lambda altered=altered: self._ciphers.opens_probe(key, algorithm, altered)):  # type: ignore[misc]
                raise Outcome(wire.Failure.TAMPERING_ACCEPTED)
        if not self._ciphers.opens_probe(key, algorithm, probe):  # the refusals above were not an outage
            raise Outcome(wire.Failure.UNAVAILABLE)


def _objects(key: StoredKey) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Each secret object of a key: its handle, what it may not do beside being extracted, and where its value is.

    A key that also wraps or unwraps can be used to carry others, or itself, out of the token; one that unwraps must not
    also decrypt, which would show what was wrapped.
    """
    match key.spec:
        case KeySpec.AES_256:
            yield key.handles.main, (CKA_WRAP, CKA_UNWRAP, CKA_DERIVE, CKA_SIGN), CKA_VALUE
            if key.handles.authentication:
                yield (
                    key.handles.authentication,
                    (CKA_WRAP, CKA_UNWRAP, CKA_DERIVE, CKA_ENCRYPT, CKA_DECRYPT),
                    CKA_VALUE,
                )
        case KeySpec.RSA_3072 | KeySpec.RSA_4096:
            yield (
                key.handles.main,
                (CKA_DECRYPT, CKA_SIGN, CKA_SIGN_RECOVER, CKA_WRAP, CKA_DERIVE),
                CKA_PRIVATE_EXPONENT,
            )


def _alterations(probe: wire.OpenValue) -> Iterator[wire.OpenValue]:
    """Tag, ciphertext, additional data, and the wrapped key where there is one."""
    for position in (-1, 0):
        yield wire.OpenValue(probe.wrapped_key, probe.nonce, _flip(probe.body, position), probe.aad)
    yield wire.OpenValue(probe.wrapped_key, probe.nonce, probe.body, probe.aad + b"!")
    if probe.wrapped_key:
        yield wire.OpenValue(_flip(probe.wrapped_key, -1), probe.nonce, probe.body, probe.aad)


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def _refused(act: Callable[[], object]) -> bool:
    """Whether the token refuses. A code that may be a passing fault is no refusal before it is said twice; one that
    says that the token was not reached is none at all, and raised."""
    for said in (1, 2):
        try:
            act()
        except CkrError as error:
            kind = ckr.class_of(error.code)
            if kind in _UNUSABLE:
                raise
            if kind is not CkrClass.AMBIGUOUS or said == 2:
                return True
        else:
            return False
    return True
