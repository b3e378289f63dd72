# SPDX-License-Identifier: Apache-2.0
"""How a value is sealed, by every algorithm, written from docs/format.md alone.

It shares no code with the operator, so that a mistake in one shows against the other. Nothing is random: nonces, keys
of values and OAEP seeds follow from a vector's name, so that the vectors are always the same. Never do this elsewhere.
"""

import hashlib
import hmac
import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.vectors.testkeys import AES_KEY, AUTHENTICATION_KEY, RSA_KEYS

KEY_ID = bytes.fromhex("5f0c1d2e3a4b4c5d8e6f708192a3b4c5")
OTHER_KEY_ID = bytes.fromhex("0a1b2c3d4e5f4a6b9c8d7e6f5a4b3c2d")
VERSION = 3

GCM, RSA_SHA1, RSA_SHA256, CBC_HMAC, GCM_16 = 1, 2, 3, 6, 7
OAEP_HASHES = {RSA_SHA1: "sha1", RSA_SHA256: "sha256"}

Binding = dict[str, Any]


def binding(**changes: Any) -> Binding:
    """Where a value is used; `changes` differ from the usual place."""
    usual = {
        "purpose": "secret",
        "scope": "Strict",
        "namespace": "shop",
        "name": "db",
        "dataKey": "password",
        "encryptionContext": {"team": "payments"},
    }
    return usual | changes


def header(*, key_id: bytes = KEY_ID, version: int = VERSION, algorithm: int = GCM, magic: bytes = b"SR1") -> bytes:
    return magic + struct.pack(">B", algorithm) + key_id + struct.pack(">I", version)


def additional_data(head: bytes, bound: Binding) -> bytes:
    """`head` is every byte before the nonce."""
    scope = bound["scope"]
    pieces = [
        b"strongroom/v1",
        bound["purpose"].encode(),
        head,
        scope.encode(),
        b"" if scope == "Cluster" else bound["namespace"].encode(),
        bound["name"].encode() if scope == "Strict" else b"",
        bound["dataKey"].encode(),
    ]
    pairs = [(key.encode(), value.encode()) for key, value in bound["encryptionContext"].items()]
    for key, value in sorted(pairs):
        pieces += [key, value]
    return struct.pack("<Q", len(pieces)) + b"".join(struct.pack("<Q", len(piece)) + piece for piece in pieces)


def fixed(name: str, size: int) -> bytes:
    """Bytes that follow from a name and differ for every name."""
    return hashlib.sha256(name.encode()).digest()[:size]


def content_key(name: str) -> bytes:
    """The value's own key under RSA algorithms."""
    return fixed(f"{name} content key", 32)


# GCM


def seal_gcm(
    name: str,
    plaintext: bytes,
    bound: Binding,
    *,
    head: bytes | None = None,
    key: bytes = AES_KEY,
    nonce_size: int = 12,
) -> bytes:
    """Algorithm 1; with 16 bytes of nonce algorithm 7."""
    head = head or header(algorithm=GCM if nonce_size == 12 else GCM_16)
    nonce = fixed(name, nonce_size)
    return head + nonce + AESGCM(key).encrypt(nonce, plaintext, additional_data(head, bound))


# RSA


def mgf1(seed: bytes, size: int, hash_name: str) -> bytes:
    """RFC 8017 appendix B.2.1."""
    blocks = (hashlib.new(hash_name, seed + struct.pack(">I", counter)).digest() for counter in range(size // 20 + 1))
    return b"".join(blocks)[:size]


def oaep(
    rsa_key: str, message: bytes, *, hash_name: str, seed_name: str, mgf_hash: str = "", label: bytes = b""
) -> bytes:
    """RSAES-OAEP-ENCRYPT (RFC 8017 section 7.1.1) with a seed that follows from a name."""
    numbers = RSA_KEYS[rsa_key].public_key().public_numbers()
    modulus_size = (numbers.n.bit_length() + 7) // 8
    label_hash = hashlib.new(hash_name, label).digest()
    padding = bytes(modulus_size - len(message) - 2 * len(label_hash) - 2)
    block = label_hash + padding + b"\x01" + message
    seed = fixed(f"{seed_name} OAEP seed", len(label_hash))
    masked_block = xor(block, mgf1(seed, len(block), mgf_hash or hash_name))
    masked_seed = xor(seed, mgf1(masked_block, len(seed), mgf_hash or hash_name))
    return raw_rsa(rsa_key, b"\0" + masked_seed + masked_block)


def raw_rsa(rsa_key: str, message: bytes) -> bytes:
    """RSAEP: no padding."""
    numbers = RSA_KEYS[rsa_key].public_key().public_numbers()
    return pow(int.from_bytes(message), numbers.e, numbers.n).to_bytes((numbers.n.bit_length() + 7) // 8)


def wrap(name: str, algorithm: int = RSA_SHA256, *, rsa_key: str = "RSA_3072", seed_name: str = "") -> bytes:
    """The value's own key, wrapped."""
    return oaep(rsa_key, content_key(name), hash_name=OAEP_HASHES[algorithm], seed_name=seed_name or name)


def rsa_header(algorithm: int, wrapped_key: bytes, **fields: Any) -> bytes:
    return header(algorithm=algorithm, **fields) + struct.pack(">H", len(wrapped_key)) + wrapped_key


def seal_rsa(
    name: str,
    plaintext: bytes,
    bound: Binding,
    *,
    algorithm: int = RSA_SHA256,
    rsa_key: str = "RSA_3072",
    wrapped_key: bytes | None = None,
    covered: bytes | None = None,
    key: bytes | None = None,
    **fields: Any,
) -> bytes:
    """Algorithms 2 and 3. `wrapped_key` goes in as it is; `covered` is what the tag covers in the place of the header;
    `key` is what the value is encrypted with, whatever was wrapped."""
    wrapped_key = wrap(name, algorithm, rsa_key=rsa_key) if wrapped_key is None else wrapped_key
    head, nonce = rsa_header(algorithm, wrapped_key, **fields), fixed(name, 12)
    data = additional_data(head if covered is None else covered, bound)
    return head + nonce + AESGCM(key or content_key(name)).encrypt(nonce, plaintext, data)


# CBC with HMAC


def cbc(padded: bytes, initial_vector: bytes) -> bytes:
    encryptor = Cipher(AES256(AES_KEY), CBC(initial_vector)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def pad(plaintext: bytes) -> bytes:
    """PKCS#7 (RFC 5652 section 6.3)."""
    count = 16 - len(plaintext) % 16
    return plaintext + bytes([count]) * count


def authenticated(data: bytes, initial_vector: bytes, ciphertext: bytes) -> bytes:
    """The MAC's input of RFC 7518 section 5.2.2.1: the last part is the length of the additional data in bits."""
    return data + initial_vector + ciphertext + struct.pack(">Q", 8 * len(data))


def cbc_tag(message: bytes, key: bytes = AUTHENTICATION_KEY) -> bytes:
    return hmac.digest(key, hashlib.sha256(message).digest(), "sha256")


def seal_cbc(
    name: str,
    plaintext: bytes,
    bound: Binding,
    *,
    padded: bytes | None = None,
    key: bytes = AUTHENTICATION_KEY,
    **fields: Any,
) -> bytes:
    """Algorithm 6. `padded` is encrypted in the place of the padded plaintext."""
    head, initial_vector = header(algorithm=CBC_HMAC, **fields), fixed(name, 16)
    ciphertext = cbc(pad(plaintext) if padded is None else padded, initial_vector)
    tag = cbc_tag(authenticated(additional_data(head, bound), initial_vector, ciphertext), key)
    return head + initial_vector + ciphertext + tag


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
