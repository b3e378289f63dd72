# SPDX-License-Identifier: Apache-2.0
"""Vectors of AES-256-CBC with HMAC-SHA-256: algorithm 6."""

import hmac
from typing import Any

from tests.vectors.reference import (
    CBC_HMAC,
    Binding,
    additional_data,
    authenticated,
    binding,
    cbc,
    cbc_tag,
    fixed,
    header,
    pad,
    seal_cbc,
    seal_gcm,
)
from tests.vectors.testkeys import AES_KEY, AUTHENTICATION_KEY, OTHER_AES_KEY
from tests.vectors.vector import bad, flipped, good, moved, plaintext_of, text


def good_vectors() -> list[dict[str, Any]]:
    def opens(name: str, plaintext: bytes, bound: Binding) -> dict[str, Any]:
        name = f"cbc-{name}"
        blob = seal_cbc(name, plaintext, bound)
        head = header(algorithm=CBC_HMAC)
        return good(name, blob, plaintext, bound, header=head, nonce=fixed(name, 16), algorithm=CBC_HMAC)

    return [
        *(opens(f"size-{size}", plaintext_of(size), binding()) for size in (0, 1, 15, 16, 17, 31, 32, 4095, 4096)),
        opens("plaintext-that-looks-padded", b"\x10" * 16 + b"\x01", binding()),
        opens("scope-Namespace", b"value", binding(scope="Namespace")),
        opens("context-empty", b"value", binding(encryptionContext={})),
    ]


def bad_vectors() -> list[dict[str, Any]]:
    return [*lengths(), *paddings(), *tags(), *flipped_bits(), *moved("cbc-", CBC_HMAC, _seal)]


def _seal(name: str, bound: Binding) -> bytes:
    return seal_cbc(name, b"value", bound)


def _refused(name: str, expect: str, blob: bytes) -> dict[str, Any]:
    return bad(f"cbc-{name}", expect, text(blob), algorithm=CBC_HMAC)


def lengths() -> list[dict[str, Any]]:
    blob = seal_cbc("cbc-lengths", plaintext_of(40), binding())
    empty = header(algorithm=CBC_HMAC) + fixed("cbc-empty", 16)
    tag = cbc_tag(authenticated(additional_data(header(algorithm=CBC_HMAC), binding()), empty[24:], b""))
    return [
        *(_refused(f"truncated-to-{size}-bytes", "malformed", blob[:size]) for size in (24, 40, 72, 87)),
        _refused("truncated-by-a-byte", "malformed", blob[:-1]),
        _refused("truncated-by-a-block", "forged", blob[:-16]),
        _refused("byte-after", "malformed", blob + b"\0"),
        _refused("block-after", "forged", blob + bytes(16)),
        _refused("no-ciphertext-with-a-right-tag", "malformed", empty + tag),
        _refused("size-4097", "too-large", seal_cbc("cbc-4097", plaintext_of(4097), binding())),
        _refused("size-4111", "too-large", seal_cbc("cbc-4111", plaintext_of(4111), binding())),
        _refused("size-4112", "too-large", seal_cbc("cbc-4112", plaintext_of(4112), binding())),
    ]


def paddings() -> list[dict[str, Any]]:
    """The tag is right, the padding is none."""
    block = plaintext_of(16)
    wrong = {
        "zero": block[:15] + b"\x00",
        "seventeen": block[:15] + b"\x11",
        "last-byte-alone": block[:13] + b"\x00\x00\x03",
        "first-byte-wrong": block[:12] + b"\x05\x04\x04\x04",
        "of-255": block[:15] + b"\xff",
        "whole-block-but-one-byte": b"\x0f" + b"\x10" * 15,
    }
    return [
        _refused(f"padding-{name}", "forged", seal_cbc(f"cbc-padding-{name}", b"", binding(), padded=padded))
        for name, padded in wrong.items()
    ]


def tags() -> list[dict[str, Any]]:
    name, head = "cbc-tags", header(algorithm=CBC_HMAC)
    initial_vector, data = fixed(name, 16), additional_data(head, binding())
    ciphertext = cbc(pad(b"value"), initial_vector)
    right = authenticated(data, initial_vector, ciphertext)

    def refused(what: str, tag: bytes, expect: str = "forged") -> dict[str, Any]:
        return _refused(f"tag-{what}", expect, head + initial_vector + ciphertext + tag)

    return [
        refused("of-the-message-not-hashed", hmac.digest(AUTHENTICATION_KEY, right, "sha256")),
        refused("without-the-length", cbc_tag(right[:-8])),
        refused("with-the-length-in-bytes", cbc_tag(right[:-8] + len(data).to_bytes(8))),
        refused("with-the-length-little-endian", cbc_tag(right[:-8] + (8 * len(data)).to_bytes(8, "little"))),
        refused("without-the-initial-vector", cbc_tag(authenticated(data, b"", ciphertext))),
        refused("without-additional-data", cbc_tag(authenticated(b"", initial_vector, ciphertext))),
        refused("under-the-encryption-key", cbc_tag(right, AES_KEY)),
        refused("under-another-key", cbc_tag(right, OTHER_AES_KEY)),
        refused("cut-to-16-bytes", cbc_tag(right)[:16], "malformed"),
        refused("zero", bytes(32)),
        _refused("sealed-as-algorithm-1", "malformed", head + seal_gcm("cbc-as-gcm", b"value", binding())[24:]),
    ]


def flipped_bits() -> list[dict[str, Any]]:
    blob = seal_cbc("cbc-flipped", plaintext_of(20), binding())
    fields = {
        "magic": (0, 3, "unsupported"),
        "algorithm": (3, 4, "unsupported"),
        "key-id": (4, 20, "wrong-key"),
        "version": (20, 24, "wrong-version"),
        "initial-vector": (24, 40, "forged"),
        "ciphertext": (40, 72, "forged"),
        "tag": (72, 104, "forged"),
    }
    return flipped(blob, fields, prefix="cbc-", algorithm=CBC_HMAC)
