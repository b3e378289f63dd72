# SPDX-License-Identifier: Apache-2.0
"""Key objects in the token: finding them, generating them, and proving how they behave.

Searches name class or id, never nothing: some tokens list hundreds of objects of their own for an empty template.
"""

import ctypes
from collections.abc import Mapping

from pkcs11 import Attribute as Cka
from pkcs11 import KeyType, MechanismFlag, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Object, Session

from strongroom.hsm import ckr, wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.canary import PROBE, PROBE_AAD, seal_probe
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.label import parse_id
from strongroom.hsm.module import Attribute, CkrError, Mechanism, OpenToken, Outcome, handle_of

AES_KEY_BYTES = 32
_CREATION_ATTEMPTS = 3

_CKM_AES_CBC_PAD = 0x1085
_WRAP_MECHANISMS = (0x2109, 0x210A, 0x210B, _CKM_AES_CBC_PAD)
"""CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_KWP, and the one meant for data that wraps as well."""
_CKA_VALUE = 0x11
_MUST_BE_FALSE = (Cka.EXTRACTABLE, Cka.WRAP, Cka.UNWRAP, Cka.DERIVE, Cka.SIGN)
"""A key that also wraps or unwraps can be used to carry others, or itself, out of the token."""
_UNUSABLE = frozenset({CkrClass.SESSION, CkrClass.LOGIN, CkrClass.DEVICE, CkrClass.HANDLE})
"""What is no refusal: the token did not get as far as refusing."""

_AES_KEYS = {Cka.CLASS: ObjectClass.SECRET_KEY, Cka.KEY_TYPE: KeyType.AES}


class KeyStore:
    """The key objects as one session sees them. Not for two threads at a time; `generate` and `verify` create keys, and
    are for one at a time in the whole process. Raises CkrError and Outcome."""

    def __init__(self, token: OpenToken, session: Session, aead: AesGcm) -> None:
        self._token = token
        self._session = session
        self._aead = aead

    def handles(self, cka_id: bytes) -> list[int]:
        """Handles of the AES keys with exactly this id; more than one are twins."""
        return [handle_of(key) for key in self._search({**_AES_KEYS, Cka.ID: cka_id})]

    def find(self, id_prefix: bytes) -> list[wire.FoundKey]:
        """All AES keys whose id is one of ours and has this prefix."""
        found = []
        for handle in map(handle_of, self._search(_AES_KEYS)):
            key = self._describe(handle)
            if key.cka_id.startswith(id_prefix) and parse_id(key.cka_id) is not None:
                found.append(key)
        if not found:
            self._token.check_health()  # a token that is gone holds nothing either
        return found

    def generate(self, cka_id: bytes, label: str) -> wire.FoundKey:
        """A new AES-256 key, verified. Outcome KEY_EXISTS if anything carries the id, KEY_TWINS if another writer got
        in between. A key that fails its verification stays in the token, unused, for people to look at."""
        if self._search({Cka.ID: cka_id}):
            raise Outcome(wire.Failure.KEY_EXISTS)
        self._token.check_health()  # a token that is gone holds nothing either
        self._create(cka_id, label)
        keys = self.handles(cka_id)
        if len(keys) != 1:
            raise Outcome(wire.Failure.KEY_TWINS)
        self.verify(keys[0])
        return self._describe(keys[0])

    def _create(self, cka_id: bytes, label: str) -> None:
        for attempt in range(1, _CREATION_ATTEMPTS + 1):
            try:
                self._generate_key(
                    MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                    {Cka.ID: cka_id, Cka.LABEL: label, Cka.TOKEN: True, Cka.EXTRACTABLE: False, Cka.MODIFIABLE: False},
                )
            except CkrError as error:
                ambiguous = ckr.class_of(error.code) is CkrClass.AMBIGUOUS
                if self.handles(cka_id):
                    return  # it failed after the key was there
                if not ambiguous or attempt == _CREATION_ATTEMPTS:
                    raise
            else:
                return

    def verify(self, key: int) -> None:
        """Prove by behaviour that the key cannot leave the token and that the token checks tags. Raises Outcome.

        Attributes alone prove nothing: there are tokens that report EXTRACTABLE = false and wrap the key all the same.
        """
        self._check_attributes(key)
        self._check_unreadable(key)
        self._check_unwrappable(key)
        self._check_authenticates(key)

    def _check_attributes(self, key: int) -> None:
        sensitive, *others = self._read_all(key, Cka.SENSITIVE, *_MUST_BE_FALSE)
        if not any(sensitive) or any(map(any, others)):  # a CK_BBOOL is true if its byte is not 0
            raise Outcome(wire.Failure.ATTRIBUTES_UNSAFE)

    def _read_all(self, key: int, *attributes: Cka) -> list[bytes]:
        """Attributes that are no secrets, in one call; empty where the token does not know one or it is longer than any
        of ours."""
        values = [ctypes.create_string_buffer(wire.MAX_TEXT_LENGTH) for _ in attributes]
        template = (Attribute * len(values))(
            *(
                Attribute(each, ctypes.addressof(value), len(value))
                for each, value in zip(attributes, values, strict=True)
            )
        )
        try:
            self._token.functions.get_attribute_value(handle_of(self._session), key, template, len(values))
        except CkrError as error:
            if error.code not in (ckr.CKR_ATTRIBUTE_TYPE_INVALID, ckr.CKR_BUFFER_TOO_SMALL):
                raise
            if len(attributes) == 1:
                return [b""]
            return [self._read_all(key, each)[0] for each in attributes]  # not every token has read the others
        return [
            value.raw[: read.length] if read.length <= len(value) else b""
            for value, read in zip(values, template, strict=True)
        ]

    def _read(self, key: int, attribute: int, value: ctypes.Array[ctypes.c_char]) -> int:
        """C_GetAttributeValue into `value`; the length read."""
        template = Attribute(attribute, ctypes.addressof(value), len(value))
        self._token.functions.get_attribute_value(handle_of(self._session), key, ctypes.byref(template), 1)
        return int(template.length)

    def _check_unreadable(self, key: int) -> None:
        value = ctypes.create_string_buffer(2 * AES_KEY_BYTES)
        try:
            length = self._read(key, _CKA_VALUE, value)
        except CkrError as error:
            _must_be_refusal(error)
            return
        finally:
            ctypes.memset(value, 0, len(value))
        if 0 < length <= len(value):  # some tokens return CKR_OK with CK_UNAVAILABLE_INFORMATION
            raise Outcome(wire.Failure.VALUE_READABLE)

    def _check_unwrappable(self, key: int) -> None:
        """Wrap it with a key made for that. First an extractable key, as a control: only a mechanism that can wrap
        proves anything by refusing."""
        offered = self._token.mechanisms()
        mechanisms = [mechanism for mechanism in _WRAP_MECHANISMS if mechanism in offered]
        if not mechanisms:
            return
        with _SessionKeys() as temporary:
            try:
                wrapping = temporary.add(self._generate_key(MechanismFlag.WRAP, {Cka.TOKEN: False}))
                control = temporary.add(
                    self._generate_key(
                        MechanismFlag.ENCRYPT, {Cka.TOKEN: False, Cka.SENSITIVE: False, Cka.EXTRACTABLE: True}
                    )
                )
            except CkrError as error:
                _must_be_refusal(error)
                return  # a token that makes no wrapping keys wraps nothing
            for mechanism in mechanisms:
                if self._wraps(mechanism, wrapping, control) and self._wraps(mechanism, wrapping, key):
                    raise Outcome(wire.Failure.KEY_WRAPPABLE)

    def _wraps(self, mechanism: int, wrapping: int, key: int) -> bool:
        wrapped = ctypes.create_string_buffer(4 * AES_KEY_BYTES)
        length = ctypes.byref(ctypes.c_ulong(len(wrapped)))
        by = ctypes.byref(Mechanism(mechanism, _InitialVector() if mechanism == _CKM_AES_CBC_PAD else None))
        try:
            self._token.functions.wrap_key(handle_of(self._session), by, wrapping, key, wrapped, length)
        except CkrError as error:
            _must_be_refusal(error)
            return False
        finally:
            ctypes.memset(wrapped, 0, len(wrapped))
        return True

    def _check_authenticates(self, key: int) -> None:
        nonce, body = seal_probe(self._aead, key)
        if body.startswith(PROBE) or self._aead.decrypt(key, nonce, body, PROBE_AAD) != PROBE:
            raise Outcome(wire.Failure.TAMPERING_ACCEPTED)
        other_tag = body[:-1] + bytes([body[-1] ^ 1])
        for tampered, aad in ((other_tag, PROBE_AAD), (body, PROBE_AAD + b"!")):
            try:
                self._aead.decrypt(key, nonce, tampered, aad)
            except CkrError as error:
                _must_be_refusal(error)
            else:
                raise Outcome(wire.Failure.TAMPERING_ACCEPTED)
        self._aead.decrypt(key, nonce, body, PROBE_AAD)  # the refusals above were not an outage

    def _search(self, template: Mapping[Cka, object]) -> list[Object]:
        """Exhausted at once: an unfinished search would hold the session."""
        try:
            return list(self._session.get_objects(dict(template)))
        except PKCS11Error as error:
            raise CkrError.of(error) from None

    def _generate_key(self, capabilities: MechanismFlag, template: Mapping[Cka, object]) -> Object:
        """C_GenerateKey for AES-256; SENSITIVE, PRIVATE unless the template says otherwise. Each value of the template
        is packed on trial first: python-pkcs11 frees wild pointers if packing fails halfway."""
        mapper = AttributeMapper()
        for attribute, value in template.items():
            mapper.pack_attribute(attribute, value)
        try:
            return self._session.generate_key(
                KeyType.AES, AES_KEY_BYTES * 8, capabilities=capabilities, template=dict(template)
            )
        except PKCS11Error as error:
            raise CkrError.of(error) from None

    def _describe(self, key: int) -> wire.FoundKey:
        cka_id, label, never_extractable = self._read_all(key, Cka.ID, Cka.LABEL, Cka.NEVER_EXTRACTABLE)
        return wire.FoundKey(cka_id, label.decode("ascii", "replace"), any(never_extractable))


class _InitialVector(ctypes.Structure):
    """The parameter of AES in CBC mode; zeros, as nothing that matters is encrypted with it."""

    _fields_ = (("iv", ctypes.c_ubyte * 16),)


class _SessionKeys:
    """Session keys that are destroyed at the end of a `with` block."""

    def __init__(self) -> None:
        self._keys: list[Object] = []

    def add(self, key: Object) -> int:
        self._keys.append(key)
        return handle_of(key)

    def __enter__(self) -> "_SessionKeys":
        return self

    def __exit__(self, *_: object) -> None:
        for key in self._keys:
            try:
                key.destroy()
            except PKCS11Error as error:
                raise CkrError.of(error) from None


def _must_be_refusal(error: CkrError) -> None:
    """Raise the error again unless the token refused: one that cannot be reached proves nothing."""
    if ckr.class_of(error.code) in _UNUSABLE:
        raise error
