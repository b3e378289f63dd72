# SPDX-License-Identifier: Apache-2.0
"""Sealing without the operator, with nothing but a key's public status: another implementation of docs/format.md."""

import base64
import os
import struct
import uuid
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ALGORITHMS: dict[str, tuple[int, hashes.HashAlgorithm]] = {"sha1": (2, hashes.SHA1()), "sha256": (3, hashes.SHA256())}


def public_key(status: Mapping[str, Any]) -> RSAPublicKey:
    """The key that a CustomerMasterKey publishes."""
    key = load_pem_public_key(status["publicKey"].encode())
    assert isinstance(key, RSAPublicKey)
    return key


def seal(
    status: Mapping[str, Any],
    plaintext: bytes,
    *,
    namespace: str,
    name: str,
    data_key: str,
    scope: str = "Strict",
    context: Mapping[str, str] | None = None,
    to: RSAPublicKey | None = None,
) -> str:
    """One value, sealed with what `status` of the CustomerMasterKey says, or to another public key."""
    algorithm, chosen = ALGORITHMS[status["oaepHash"]]
    content_key, nonce = os.urandom(32), os.urandom(12)
    padding = OAEP(mgf=MGF1(chosen), algorithm=chosen, label=None)
    wrapped_key = (to or public_key(status)).encrypt(content_key, padding)
    header = b"SR1" + bytes([algorithm]) + uuid.UUID(status["keyId"]).bytes
    header += struct.pack(">IH", status["currentVersion"], len(wrapped_key)) + wrapped_key
    place = {"Strict": (namespace, name), "Namespace": (namespace, ""), "Cluster": ("", "")}[scope]
    texts = ["secret", None, scope, *place, data_key]
    for key, value in sorted((context or {}).items()):  # by code points, which is the order of the UTF-8 bytes
        texts += [key, value]
    pieces = [b"strongroom/v1", *(header if text is None else text.encode() for text in texts)]
    data = struct.pack("<Q", len(pieces)) + b"".join(struct.pack("<Q", len(piece)) + piece for piece in pieces)
    return base64.b64encode(header + nonce + AESGCM(content_key).encrypt(nonce, plaintext, data)).decode()
