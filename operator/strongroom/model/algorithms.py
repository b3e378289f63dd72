# SPDX-License-Identifier: Apache-2.0
"""The algorithms of blobs, and the sizes that follow from each (docs/format.md)."""

from enum import IntEnum, StrEnum, unique

from strongroom.model.keys import KeySpec
from strongroom.model.limits import TAG_BYTES

BLOCK_BYTES = 16
"""AES block: what CBC pads to (FIPS 197)."""


@unique
class OaepHash(StrEnum):
    """Hash of RSA-OAEP and of its MGF1, always the same; the label is empty (RFC 8017 section 7.1)."""

    SHA1 = "sha1"
    SHA256 = "sha256"


@unique
class Algorithm(IntEnum):
    """The blob's algorithm byte. 4, 5 and 16+ are reserved (docs/format.md); an unknown one is never guessed."""

    AES_256_GCM = 1
    """In the token, with a 96-bit nonce and a 128-bit tag (NIST SP 800-38D)."""
    RSA_OAEP_SHA1_AES_256_GCM = 2
    """A fresh AES-256-GCM key, wrapped with the public key; the token unwraps it and decrypts."""
    RSA_OAEP_SHA256_AES_256_GCM = 3
    AES_256_CBC_HMAC_SHA256 = 6
    """Encrypt, then authenticate, for tokens without GCM (RFC 7518 section 5.2.2, hashed before the HMAC)."""
    AES_256_GCM_IV16 = 7
    """As 1, with a 128-bit nonce that the token makes."""

    @property
    def nonce_bytes(self) -> int:
        """Length of the nonce or initial vector."""
        match self:
            case Algorithm.AES_256_CBC_HMAC_SHA256 | Algorithm.AES_256_GCM_IV16:
                return 16
            case Algorithm.AES_256_GCM | Algorithm.RSA_OAEP_SHA1_AES_256_GCM | Algorithm.RSA_OAEP_SHA256_AES_256_GCM:
                return 12

    @property
    def tag_bytes(self) -> int:
        """Length of the tag."""
        return 32 if self is Algorithm.AES_256_CBC_HMAC_SHA256 else TAG_BYTES

    @property
    def oaep_hash(self) -> OaepHash | None:
        """Hash of the OAEP that wraps the blob's own key; None: there is no such key."""
        match self:
            case Algorithm.RSA_OAEP_SHA1_AES_256_GCM:
                return OaepHash.SHA1
            case Algorithm.RSA_OAEP_SHA256_AES_256_GCM:
                return OaepHash.SHA256
            case Algorithm.AES_256_GCM | Algorithm.AES_256_CBC_HMAC_SHA256 | Algorithm.AES_256_GCM_IV16:
                return None

    def ciphertext_bytes(self, plaintext_bytes: int) -> int:
        """How long the ciphertext of so long a plaintext is, without nonce and tag."""
        if self is Algorithm.AES_256_CBC_HMAC_SHA256:
            return (plaintext_bytes // BLOCK_BYTES + 1) * BLOCK_BYTES
        return plaintext_bytes

    def plaintext_bytes(self, ciphertext_bytes: int) -> int | None:
        """How long the plaintext of so long a ciphertext is, at most: exact but for CBC, where the padding, which is
        inside, decides within one block. None: no ciphertext is so long."""
        if self is not Algorithm.AES_256_CBC_HMAC_SHA256:
            return ciphertext_bytes if ciphertext_bytes >= 0 else None
        if ciphertext_bytes <= 0 or ciphertext_bytes % BLOCK_BYTES:
            return None
        return ciphertext_bytes - 1


def rsa_algorithm(oaep_hash: OaepHash) -> Algorithm:
    """The algorithm of an RSA key whose token unwraps with this hash."""
    match oaep_hash:
        case OaepHash.SHA1:
            return Algorithm.RSA_OAEP_SHA1_AES_256_GCM
        case OaepHash.SHA256:
            return Algorithm.RSA_OAEP_SHA256_AES_256_GCM


def modulus_bytes(spec: KeySpec) -> int | None:
    """Length of an RSA key's modulus, which is that of a wrapped key; None for AES."""
    match spec:
        case KeySpec.AES_256:
            return None
        case KeySpec.RSA_3072:
            return 384
        case KeySpec.RSA_4096:
            return 512
