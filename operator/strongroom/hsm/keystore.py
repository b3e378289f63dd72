# SPDX-License-Identifier: Apache-2.0
"""Key objects in the token: finding and generating them.

    AES-GCM       one AES key
    AES-CBC+HMAC  an AES key and a generic secret; the AES key is made last, so where it is the other is, too
    RSA           a private and a public key

Searches name a class or an id, never nothing: some tokens list hundreds of objects of their own for an empty template.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from strongroom.hsm import ckr, wire
from strongroom.hsm.ckr import CkrClass
from strongroom.hsm.cryptoki import (
    CKA_CLASS,
    CKA_DECRYPT,
    CKA_DERIVE,
    CKA_ENCRYPT,
    CKA_EXTRACTABLE,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_MODIFIABLE,
    CKA_MODULUS,
    CKA_MODULUS_BITS,
    CKA_NEVER_EXTRACTABLE,
    CKA_PRIVATE,
    CKA_PUBLIC_EXPONENT,
    CKA_SENSITIVE,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_TOKEN,
    CKA_UNWRAP,
    CKA_VALUE_LEN,
    CKA_VERIFY,
    CKA_WRAP,
    CKK_AES,
    CKK_GENERIC_SECRET,
    CKK_RSA,
    CKK_SHA256_HMAC,
    CKM_AES_KEY_GEN,
    CKM_GENERIC_SECRET_KEY_GEN,
    CKM_RSA_PKCS_KEY_PAIR_GEN,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
    AttributeValue,
    CkrError,
    CryptokiSession,
    KeyHandles,
)
from strongroom.hsm.label import KeyLabel, pack_compact, parse_compact, parse_id
from strongroom.hsm.module import OpenToken
from strongroom.hsm.outcome import Outcome
from strongroom.model.algorithms import modulus_bytes
from strongroom.model.keys import KeySpec
from strongroom.profiles import Aead, KeyTemplate, Marking

AES_KEY_BYTES = 32
_HMAC_KEY_BYTES = 32
_PUBLIC_EXPONENT = (65537).to_bytes(3)
"""NIST SP 800-56B section 6.2 allows others; every token takes this one."""
_ATTRIBUTE_REFUSED = (ckr.CKR_ATTRIBUTE_TYPE_INVALID, ckr.CKR_ATTRIBUTE_VALUE_INVALID, ckr.CKR_TEMPLATE_INCONSISTENT)
_CREATION_ATTEMPTS = 3
"""SoftHSM 2.6.1 fails on some creations while other processes create, too (upstream issues 573, 576)."""

_Attributes = Mapping[int, AttributeValue]
# CKA_TOKEN: the session keys of values that other threads are opening come and go.
_AES: _Attributes = {CKA_CLASS: CKO_SECRET_KEY, CKA_KEY_TYPE: CKK_AES, CKA_TOKEN: True}
_HMAC: _Attributes = {CKA_CLASS: CKO_SECRET_KEY, CKA_KEY_TYPE: CKK_GENERIC_SECRET, CKA_TOKEN: True}
_TYPED_HMAC: _Attributes = {CKA_CLASS: CKO_SECRET_KEY, CKA_KEY_TYPE: CKK_SHA256_HMAC, CKA_TOKEN: True}
_RSA_PRIVATE: _Attributes = {CKA_CLASS: CKO_PRIVATE_KEY, CKA_KEY_TYPE: CKK_RSA, CKA_TOKEN: True}
_RSA_PUBLIC: _Attributes = {CKA_CLASS: CKO_PUBLIC_KEY, CKA_KEY_TYPE: CKK_RSA, CKA_TOKEN: True}

_KEPT_INSIDE: _Attributes = {
    CKA_PRIVATE: True,
    CKA_SENSITIVE: True,
    CKA_EXTRACTABLE: False,
    CKA_MODIFIABLE: False,
}
# Only attributes that every vendor knows for that kind of key: some refuse a template with any other.
_ENCRYPTS_ONLY: _Attributes = {
    CKA_ENCRYPT: True,
    CKA_DECRYPT: True,
    CKA_WRAP: False,
    CKA_UNWRAP: False,
    CKA_DERIVE: False,
    CKA_SIGN: False,
    CKA_VERIFY: False,
}
_SIGNS_ONLY: _Attributes = {CKA_SIGN: True, CKA_VERIFY: True, CKA_DERIVE: False}
_NO_OTHER_USE: _Attributes = {CKA_ENCRYPT: False, CKA_DECRYPT: False, CKA_WRAP: False, CKA_UNWRAP: False}
_UNWRAPS_ONLY: _Attributes = {CKA_UNWRAP: True, CKA_DECRYPT: False, CKA_SIGN: False, CKA_DERIVE: False}
_CKA_KMS_ALGORITHM = 0x8001E101
_KMS_AES_256_GCM = 19
"""Of Google's library (kmsp11.h): the kind of key, and nothing else but a label, is what it wants to be told."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key version as a session knows it. Modulus and exponent are those of RSA, big-endian; else empty."""

    cka_id: bytes
    spec: KeySpec
    handles: KeyHandles
    modulus: bytes = b""
    public_exponent: bytes = b""


class KeyStore:
    """The key objects as one session sees them. Not for two threads at a time; `generate` takes a read-write session,
    and is for one at a time in the whole process. Raises CkrError and Outcome."""

    def __init__(self, token: OpenToken, session: CryptokiSession) -> None:
        self._token = token
        self._session = session
        self._profile = token.profile
        self._hmac = _TYPED_HMAC if token.profile.key_template is KeyTemplate.TYPED_HMAC else _HMAC

    def look_up(self, cka_id: bytes) -> StoredKey:
        """The one key of this id. Outcome KEY_NOT_FOUND if a healthy token holds none, KEY_TWINS for several."""
        stored = self._look_up(cka_id)
        if stored is None:
            self._token.check_health(self._session)
            stored = self._look_up(cka_id)  # what was away a moment ago found nothing either
        if stored is None:
            raise Outcome(wire.Failure.KEY_NOT_FOUND)
        return stored

    def _look_up(self, cka_id: bytes) -> StoredKey | None:
        aes, rsa = self._objects(_AES, cka_id), self._objects(_RSA_PRIVATE, cka_id)
        if len(aes) + len(rsa) > 1:
            raise Outcome(wire.Failure.KEY_TWINS)
        if rsa:
            return self._read_rsa(cka_id, rsa[0])
        hmac = self._objects(self._hmac, cka_id)
        if not aes or (self._profile.aead is Aead.CBC_HMAC and not hmac):
            return None
        if len(hmac) > 1:
            raise Outcome(wire.Failure.KEY_TWINS)
        return StoredKey(cka_id, KeySpec.AES_256, KeyHandles(aes[0], *hmac))

    def find(self, id_prefix: bytes) -> list[wire.FoundKey]:
        """All keys whose id is one of ours and has this prefix."""
        try:
            return self._find(id_prefix)
        except CkrError as error:
            if ckr.class_of(error.code) is not CkrClass.HANDLE:
                raise
            return self._find(id_prefix)  # one of them went meanwhile

    def _find(self, id_prefix: bytes) -> list[wire.FoundKey]:
        found: list[StoredKey | None] = []
        for key, cka_id in self._ours(_AES, id_prefix):
            found.append(StoredKey(cka_id, KeySpec.AES_256, KeyHandles(key)))
        for key, cka_id in self._ours(_RSA_PRIVATE, id_prefix):
            found.append(self._read_rsa(cka_id, key))
        described = [self.describe(key) for key in found if key is not None]
        self._token.check_health(self._session)  # a token that is gone holds nothing either, or half
        return described

    def describe(self, key: StoredKey) -> wire.FoundKey:
        """What is told of it."""
        label, never_extractable = self._session.read(key.handles.main, CKA_LABEL, CKA_NEVER_EXTRACTABLE)
        return wire.FoundKey(
            key.cka_id,
            label.decode("ascii", "replace")[: wire.MAX_TEXT_LENGTH],
            key.spec,
            any(never_extractable),
            key.modulus,
            key.public_exponent,
        )

    def generate(self, cka_id: bytes, label: str, spec: KeySpec) -> StoredKey:
        """A new key. Outcome KEY_EXISTS if a key carries the id, KEY_TWINS if another writer got in between."""
        if any(self._objects(kind, cka_id) for kind in (_AES, _RSA_PRIVATE)):
            raise Outcome(wire.Failure.KEY_EXISTS)
        self._token.check_health(self._session)  # a token that is gone holds nothing either
        marks = self._marks(cka_id, label)
        match spec:
            case KeySpec.AES_256:
                if self._profile.aead is Aead.CBC_HMAC and not self._objects(self._hmac, cka_id):
                    self._create(cka_id, self._hmac, lambda: self._generate_hmac(marks))
                self._create(cka_id, _AES, lambda: self._generate_aes(marks))
            case KeySpec.RSA_3072 | KeySpec.RSA_4096:
                self._create(cka_id, _RSA_PRIVATE, lambda: self._generate_rsa(marks, spec))
        return self.look_up(cka_id)

    def _create(self, cka_id: bytes, kind: _Attributes, generate: Callable[[], object]) -> None:
        for attempt in range(1, _CREATION_ATTEMPTS + 1):
            try:
                generate()
            except CkrError as error:
                ambiguous = ckr.class_of(error.code) is CkrClass.AMBIGUOUS
                if self._objects(kind, cka_id):
                    return  # it failed after the key was there
                if not ambiguous or attempt == _CREATION_ATTEMPTS:
                    raise
            else:
                return

    def _generate_aes(self, marks: _Attributes) -> None:
        if self._profile.key_template is KeyTemplate.CLOUD_KMS:
            template = {**marks, _CKA_KMS_ALGORITHM: _KMS_AES_256_GCM}
        else:
            template = {**_AES, **_KEPT_INSIDE, **_ENCRYPTS_ONLY, CKA_VALUE_LEN: AES_KEY_BYTES, **marks}
        self._session.generate_key(CKM_AES_KEY_GEN, template)

    def _generate_hmac(self, marks: _Attributes) -> None:
        template = {**self._hmac, **_KEPT_INSIDE, **_SIGNS_ONLY, **marks}
        if self._profile.key_template is not KeyTemplate.TYPED_HMAC:  # which has no other uses
            template |= {**_NO_OTHER_USE, CKA_VALUE_LEN: _HMAC_KEY_BYTES}
        self._session.generate_key(CKM_GENERIC_SECRET_KEY_GEN, template)

    def _generate_rsa(self, marks: _Attributes, spec: KeySpec) -> None:
        bits = (modulus_bytes(spec) or 0) * 8
        public = {**_RSA_PUBLIC, CKA_WRAP: True, CKA_ENCRYPT: False, CKA_VERIFY: False, **marks}
        public |= {CKA_MODULUS_BITS: bits, CKA_PUBLIC_EXPONENT: _PUBLIC_EXPONENT}
        private = {**_RSA_PRIVATE, **_KEPT_INSIDE, **_UNWRAPS_ONLY, **marks}
        try:
            self._session.generate_key_pair(CKM_RSA_PKCS_KEY_PAIR_GEN, public, {**private, CKA_SIGN_RECOVER: False})
        except CkrError as error:
            if error.code not in _ATTRIBUTE_REFUSED:
                raise
            self._session.generate_key_pair(CKM_RSA_PKCS_KEY_PAIR_GEN, public, private)  # not every token knows it

    def _marks(self, cka_id: bytes, label: str) -> dict[int, AttributeValue]:
        """How the token's profile has it say which key it is."""
        match self._profile.marking:
            case Marking.ID:
                return {CKA_ID: cka_id, CKA_LABEL: label.encode()}
            case Marking.LABEL:
                parsed = KeyLabel.parse(label)
                if parsed is None:
                    raise wire.ProtocolError("a label that is none of ours")
                return {CKA_LABEL: pack_compact(cka_id, parsed.cluster).encode()}

    def _objects(self, kind: _Attributes, cka_id: bytes) -> list[int]:
        match self._profile.marking:
            case Marking.ID:
                return self._session.find({**kind, CKA_ID: cka_id})
            case Marking.LABEL:
                return [key for key, each in self._ours(kind, cka_id) if each == cka_id]

    def _ours(self, kind: _Attributes, id_prefix: bytes) -> Iterator[tuple[int, bytes]]:
        for key in self._session.find(kind):
            cka_id = self._identity(key, kind)
            if cka_id.startswith(id_prefix) and parse_id(cka_id) is not None:
                yield key, cka_id

    def _identity(self, key: int, kind: _Attributes) -> bytes:
        """CKA_ID, or what the label says in its stead; empty if it is not of this kind after all: small tokens do not
        look at the type when they search."""
        match self._profile.marking:
            case Marking.ID:
                return self._session.read(key, CKA_ID)[0]
            case Marking.LABEL:
                label, key_type = self._session.read(key, CKA_LABEL, CKA_KEY_TYPE)
                of_kind = int.from_bytes(key_type, sys.byteorder) == kind[CKA_KEY_TYPE]
                return parse_compact(label.decode("ascii", "replace")) if of_kind else b""

    def _read_rsa(self, cka_id: bytes, key: int) -> StoredKey | None:
        """None: it is no RSA key that we would make."""
        modulus, exponent = self._read_public(key)
        for each in self._objects(_RSA_PUBLIC, cka_id) if not exponent else ():
            # Not every token shows the exponent with the private key. Anyone may have put public objects there.
            others_modulus, others_exponent = self._read_public(each)
            exponent = others_exponent if others_modulus == modulus else exponent
        for spec in KeySpec:
            if len(modulus) == modulus_bytes(spec) and modulus[-1] & 1 and exponent == _PUBLIC_EXPONENT:
                return StoredKey(cka_id, spec, KeyHandles(key), modulus, exponent)
        return None

    def _read_public(self, key: int) -> tuple[bytes, bytes]:
        modulus, exponent = self._session.read(key, CKA_MODULUS, CKA_PUBLIC_EXPONENT)
        return modulus.lstrip(b"\0"), exponent.lstrip(b"\0")
