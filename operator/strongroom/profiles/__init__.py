# SPDX-License-Identifier: Apache-2.0
"""Vendor profiles: how PKCS#11 tokens differ, as data. One YAML file each, in this directory.

Every field has its meaning beside it. The files name the vendor's documents and say whether the profile was tried on
the real thing.
"""

from enum import StrEnum, unique
from functools import cache
from importlib import resources
from typing import Annotated, Any

import msgspec

from strongroom.model.algorithms import Algorithm, OaepHash, rsa_algorithm
from strongroom.model.keys import KeySpec

GENERIC = "generic"
"""The profile of a token that does what PKCS#11 2.40 says."""
_SUFFIX = ".yaml"


class ProfileError(Exception):
    """No such profile, or a change to one that does not fit. The message says what is expected."""


@unique
class Aead(StrEnum):
    """How the token encrypts and authenticates under an AES key."""

    GCM = "gcm"
    CBC_HMAC = "cbc-hmac"
    """AES-CBC and HMAC-SHA-256, each with a key of its own in the token; for tokens without GCM."""


@unique
class IvSource(StrEnum):
    """Who makes the initial vector of an AES-GCM encryption, and where it comes back."""

    HOST = "host"
    """We do: random bytes of the token XOR the kernel's."""
    ZERO_BUFFER = "zero-buffer"
    """The token, into the buffer of zeros that pIv points to."""
    PREPENDED = "prepended"
    """The token, in front of the ciphertext; pIv is NULL."""
    APPENDED = "appended"
    """The token, behind the tag; pIv is NULL."""


@unique
class Marking(StrEnum):
    """Where a key object says which key it is (hsm/label.py)."""

    ID = "id"
    """CKA_ID of 20 bytes finds it, CKA_LABEL of up to 120 says whose it is."""
    LABEL = "label"
    """CKA_LABEL of 40 characters alone, for tokens with less room or with ids of their own."""


@unique
class KeyTemplate(StrEnum):
    """What the token wants to be told, and what it refuses to hear, when it generates a key."""

    STANDARD = "standard"
    """The attributes of PKCS#11 2.40. An HMAC key is a generic secret (CKK_GENERIC_SECRET) of CKA_VALUE_LEN 32."""
    TYPED_HMAC = "typed-hmac"
    """As `standard`, but an HMAC key is CKK_SHA256_HMAC, without CKA_VALUE_LEN: its length is the token's."""
    CLOUD_KMS = "cloud-kms"
    """CKA_LABEL and CKA_KMS_ALGORITHM (0x8001E101, a CK_ULONG; 19 is AES_256_GCM) and nothing else."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How one kind of token behaves. Defaults are those of PKCS#11 2.40."""

    title: str
    """Vendor and product, for people."""
    verified: bool
    """Whether it was tried on the real thing; else from its vendor's documents alone."""
    sources: list[str]
    """Where it comes from."""
    notes: list[str] = []
    """What an administrator should know."""
    aead: Aead = Aead.GCM
    gcm_mechanism: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] = 0x1087
    """CKM_AES_GCM, or a vendor's own number for it."""
    iv_source: IvSource = IvSource.HOST
    iv_bytes: int = 12
    """Length of the AES-GCM nonce: 12 or 16."""
    max_data_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Most bytes the token takes in one call of AES-CBC; 0: as many as a value has."""
    oaep_hash: OaepHash | None = None
    """Hash with which the token unwraps; None: no RSA keys here."""
    login: bool = True
    """Whether there is a C_Login, and so a PIN."""
    read_only_sessions: bool = True
    """Whether there are sessions without CKF_RW_SESSION. Values are then encrypted and decrypted in such."""
    sessions: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
    """Sessions for values, unless the configuration says how many; the token's own limit counts, too."""
    marking: Marking = Marking.ID
    key_template: KeyTemplate = KeyTemplate.STANDARD

    @property
    def aes_algorithm(self) -> Algorithm:
        """Algorithm of values under an AES key."""
        if self.aead is Aead.CBC_HMAC:
            return Algorithm.AES_256_CBC_HMAC_SHA256
        if self.iv_bytes == Algorithm.AES_256_GCM_IV16.nonce_bytes:
            return Algorithm.AES_256_GCM_IV16
        return Algorithm.AES_256_GCM

    def algorithm(self, spec: KeySpec) -> Algorithm | None:
        """Algorithm of new values under a key of this kind; None: the token has no such keys."""
        if spec is KeySpec.AES_256:
            return self.aes_algorithm
        if self.oaep_hash is None:
            return None
        algorithm = rsa_algorithm(self.oaep_hash)
        cut_elsewhere = self.iv_source is IvSource.PREPENDED and self.iv_bytes != algorithm.nonce_bytes
        return None if cut_elsewhere else algorithm


def names() -> list[str]:
    """All profiles, sorted."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in _directory().iterdir() if file.name.endswith(_SUFFIX))


@cache
def _raw(name: str) -> dict[str, Any]:
    if name not in names():
        raise ProfileError(f"there is no profile {name!r}, but {', '.join(names())}")
    raw: dict[str, Any] = msgspec.yaml.decode((_directory() / f"{name}{_SUFFIX}").read_bytes())
    return raw


def load(name: str, changes: dict[str, Any] | None = None) -> Profile:
    """A profile, with some of its fields changed. Raises ProfileError."""
    try:
        profile = msgspec.convert({**_raw(name), **(changes or {})}, Profile)
    except msgspec.ValidationError as error:
        raise ProfileError(f"profile {name!r}: {error}") from None
    if profile.iv_bytes not in (12, 16):
        raise ProfileError(f"profile {name!r}: ivBytes is 12 or 16")
    return profile


def _directory() -> Any:
    return resources.files(__name__)
