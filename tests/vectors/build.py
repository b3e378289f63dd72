# SPDX-License-Identifier: Apache-2.0
"""Writes blob-v1.json, the test vectors of docs/format.md: `python tests/vectors/build.py`.

It shares no code with the operator: format and additional data are spelled out here a second time, from docs/format.md
alone, so that a mistake in one shows against the other. Keys and nonces are fixed, so the file is always the same.
"""

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE = Path(__file__).with_name("blob-v1.json")

AES_KEY = bytes(range(32))
OTHER_AES_KEY = bytes(range(32, 64))
KEY_ID = bytes.fromhex("5f0c1d2e3a4b4c5d8e6f708192a3b4c5")
OTHER_KEY_ID = bytes.fromhex("0a1b2c3d4e5f4a6b9c8d7e6f5a4b3c2d")
VERSION = 3

FAILURE_CLASSES = {
    "malformed": "Not the canonical text of a blob: base64, lengths or a field out of range.",
    "unsupported": "Another format, or an algorithm that is reserved or unknown.",
    "too-large": "The plaintext would exceed 4096 bytes, or the text 6216 characters.",
    "wrong-key": "Names a key id other than the key's.",
    "wrong-version": "Names a version that the key does not have.",
    "forged": "The tag does not verify: some byte differs from what was sealed, or other key material sealed it.",
    "wrong-context": "The tag does not verify: sealed with another encryption context.",
    "wrong-place": "The tag does not verify: sealed for another namespace, name or data key, or another scope.",
    "wrong-purpose": "The tag does not verify: sealed for another purpose.",
}

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


def header(*, key_id: bytes = KEY_ID, version: int = VERSION, algorithm: int = 1, magic: bytes = b"SR1") -> bytes:
    return magic + struct.pack(">B", algorithm) + key_id + struct.pack(">I", version)


def additional_data(head: bytes, bound: Binding) -> bytes:
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


def nonce_of(name: str) -> bytes:
    """Fixed and different for every vector. Never do this outside test vectors: real nonces are random."""
    return hashlib.sha256(name.encode()).digest()[:12]


def plaintext_of(size: int) -> bytes:
    return bytes((7 * position + 3) % 256 for position in range(size))


def seal(name: str, plaintext: bytes, bound: Binding, *, head: bytes | None = None, key: bytes = AES_KEY) -> bytes:
    head = head or header()
    nonce = nonce_of(name)
    return head + nonce + AESGCM(key).encrypt(nonce, plaintext, additional_data(head, bound))


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def good(name: str, plaintext: bytes, bound: Binding, *, version: int = VERSION) -> dict[str, Any]:
    head = header(version=version)
    return {
        "name": name,
        "key": AES_KEY.hex(),
        "keyId": KEY_ID.hex(),
        "version": version,
        "nonce": nonce_of(name).hex(),
        "plaintext": plaintext.hex(),
        "binding": bound,
        "aad": additional_data(head, bound).hex(),
        "blob": text(seal(name, plaintext, bound, head=head)),
    }


def bad(name: str, expect: str, blob: str, *, bound: Binding | None = None, sealed_for: Binding | None = None) -> Any:
    """A blob that must fail with class `expect`. `sealedFor`: the binding under which it does open."""
    assert expect in FAILURE_CLASSES, expect
    vector = {
        "name": name,
        "expect": expect,
        "key": AES_KEY.hex(),
        "keyId": KEY_ID.hex(),
        "versions": [VERSION],
        "binding": bound or binding(),
        "blob": blob,
    }
    return vector | ({"sealedFor": sealed_for} if sealed_for else {})


def good_vectors() -> list[dict[str, Any]]:
    sixteen = {f"key-{number:02}": f"value {number}" for number in range(16)}
    # By UTF-8 bytes: B, a, U+FF5E, U+1F511. By UTF-16 units U+1F511 (a surrogate pair) comes before U+FF5E.
    orders = {"\U0001f511": "U+1F511", "\uff5e": "U+FF5E", "a": "lower", "B": "upper"}
    return [
        good("worked-example", b"hunter2", binding()),
        *(good(f"size-{size}", plaintext_of(size), binding()) for size in (0, 1, 2, 3, 15, 16, 17, 4095, 4096)),
        *(good(f"scope-{scope}", b"value", binding(scope=scope)) for scope in ("Strict", "Namespace", "Cluster")),
        *(good(f"purpose-{purpose}", b"value", binding(purpose=purpose)) for purpose in ("secret", "datakey", "file")),
        good("scope-Namespace-purpose-datakey", b"value", binding(scope="Namespace", purpose="datakey")),
        good("scope-Cluster-purpose-file", b"value", binding(scope="Cluster", purpose="file")),
        good("first-version", b"value", binding(), version=1),
        good("last-version", b"value", binding(), version=2**32 - 1),
        good("longest-names", b"value", binding(namespace="n" * 63, name="m" * 253, dataKey="k" * 253)),
        good("data-key-with-every-kind-of-character", b"value", binding(dataKey="tls-1_2.KEY")),
        good("context-empty", b"value", binding(encryptionContext={})),
        good("context-16-pairs", b"value", binding(encryptionContext=sixteen)),
        good("context-1024-bytes", b"value", binding(encryptionContext={"k": "v" * 1023})),
        good("context-empty-value", b"value", binding(encryptionContext={"team": ""})),
        good("context-not-ascii", b"value", binding(encryptionContext={"équipe": "Zahlungen für Köln", "鍵": "値"})),
        good("context-not-normalised", b"value", binding(encryptionContext={"\u00e9": "composed", "e\u0301": "not"})),
        good("context-sorted-by-utf-8-not-utf-16", b"value", binding(encryptionContext=orders)),
        good("context-prefix-keys", b"value", binding(encryptionContext={"ab": "c", "a": "bc", "abc": ""})),
    ]


def bad_vectors() -> list[dict[str, Any]]:
    return [*bad_texts(), *truncations(), *bad_fields(), *flipped_bits(), *moved()]


def bad_texts() -> list[dict[str, Any]]:
    one = text(seal("bad-text", b"v", binding()))  # 53 bytes: one padding character
    two = text(seal("bad-text", b"vv", binding()))  # 54 bytes: no padding
    three = text(seal("bad-text", b"vvv", binding()))  # 55 bytes: two padding characters
    # The last character before the padding holds bits that no byte takes; they must be zero.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    trailing_one = one[:-2] + alphabet[alphabet.index(one[-2]) + 1] + "="
    trailing_two = three[:-3] + alphabet[alphabet.index(three[-3]) + 1] + "=="
    url_safe = text(seal("bad-text", b"\xff" * 64, binding()))
    assert one[-1] == "=" != one[-2]
    assert three[-2:] == "=="
    assert "=" not in two
    assert {"+", "/"} <= set(url_safe)
    return [
        bad("empty", "unsupported", ""),
        bad("not-base64", "malformed", "U1Ix!!!!"),
        bad("url-safe-alphabet", "malformed", url_safe.replace("+", "-").replace("/", "_")),
        bad("url-safe-alphabet-in-one-place", "malformed", url_safe.replace("+", "-", 1)),
        bad("padding-missing", "malformed", one.rstrip("=")),
        bad("padding-missing-one-of-two", "malformed", three[:-1]),
        bad("padding-too-much", "malformed", two + "="),
        bad("padding-four-more", "malformed", two + "===="),
        bad("padding-in-the-middle", "malformed", one[:8] + "=" + one[9:]),
        bad("trailing-bits-two", "malformed", trailing_one),
        bad("trailing-bits-four", "malformed", trailing_two),
        bad("space-before", "malformed", " " + one),
        bad("space-after", "malformed", one + " "),
        bad("newline-after", "malformed", one + "\n"),
        bad("newline-within", "malformed", one[:60] + "\n" + one[60:]),
        bad("carriage-return-within", "malformed", one[:60] + "\r\n" + one[60:]),
        bad("tab-within", "malformed", one[:4] + "\t" + one[4:]),
        bad("nul-after", "malformed", one + "\0"),
        bad("not-ascii-look-alike", "malformed", "\uff35" + one[1:]),
        bad("not-ascii-lone-accent", "malformed", one[:4] + "\u0301" + one[4:]),
        bad("two-blobs", "malformed", one + one),
        bad("hexadecimal", "unsupported", seal("bad-text", b"vv", binding()).hex()),
        bad("byte-after", "forged", text(seal("bad-text", b"v", binding()) + b"\0")),
    ]


def truncations() -> list[dict[str, Any]]:
    """Every length below the shortest blob of 52 bytes, and what is long enough but lacks its end."""
    shortest = seal("truncated", b"", binding())
    longer = seal("truncated", b"value", binding())
    return [
        *(bad(f"truncated-to-{size:02}-bytes", "unsupported", text(shortest[:size])) for size in (1, 2)),
        *(bad(f"truncated-to-{size:02}-bytes", "malformed", text(shortest[:size])) for size in range(3, 52)),
        *(bad(f"truncated-by-{size}-bytes", "forged", text(longer[:-size])) for size in (1, 2, 3, 4, 5)),
        bad("truncated-at-the-front", "unsupported", text(longer[1:])),
    ]


def bad_fields() -> list[dict[str, Any]]:
    def sealed(expect: str, name: str, **fields: Any) -> dict[str, Any]:
        return bad(name, expect, text(seal(name, b"value", binding(), head=header(**fields))))

    def oversized(name: str, size: int) -> dict[str, Any]:
        return bad(name, "too-large", text(seal(name, plaintext_of(size), binding())))

    return [
        sealed("unsupported", "magic-of-a-next-version", magic=b"SR2"),
        sealed("unsupported", "magic-lower-case", magic=b"sr1"),
        sealed("unsupported", "magic-zero", magic=b"\0\0\0"),
        *(sealed("unsupported", f"algorithm-{n:03}", algorithm=n) for n in (0, 2, 3, 4, 5, 6, 7, 8, 15, 16, 128, 255)),
        sealed("malformed", "version-0", version=0),
        sealed("wrong-version", "version-unknown", version=VERSION + 1),
        sealed("wrong-version", "version-byte-order-swapped", version=int.from_bytes(VERSION.to_bytes(4, "little"))),
        sealed("wrong-key", "key-id-of-another-key", key_id=OTHER_KEY_ID),
        sealed("wrong-key", "key-id-zero", key_id=bytes(16)),
        oversized("size-4097", 4097),
        oversized("size-longest-text", 6216 // 4 * 3 - 52),
        bad("text-longer-than-any-blob", "too-large", text(seal("long", plaintext_of(4611), binding()))),
        bad("text-longer-than-any-blob-and-not-base64", "too-large", "!" * 6217),
        bad("other-key-material", "forged", text(seal("other", b"value", binding(), key=OTHER_AES_KEY))),
    ]


def flipped_bits() -> list[dict[str, Any]]:
    """One bit of every field, the lowest of its first and the highest of its last byte."""
    blob = seal("flipped", b"value", binding())
    fields = {
        "magic": (0, 3, "unsupported"),
        "algorithm": (3, 4, "unsupported"),
        "key-id": (4, 20, "wrong-key"),
        "version": (20, 24, "wrong-version"),
        "nonce": (24, 36, "forged"),
        "ciphertext": (36, len(blob) - 16, "forged"),
        "tag": (len(blob) - 16, len(blob), "forged"),
    }
    vectors = []
    for field, (start, end, expect) in fields.items():
        for where, position, mask in (("first", start, 0x01), ("last", end - 1, 0x80)):
            flipped = bytearray(blob)
            flipped[position] ^= mask
            vectors.append(bad(f"flipped-{field}-{where}-byte", expect, text(bytes(flipped))))
    return vectors


def moved() -> list[dict[str, Any]]:
    """Sealed for one binding, used under another."""
    changes: list[tuple[str, str, Binding, Binding]] = [
        ("other-namespace", "wrong-place", binding(), binding(namespace="web")),
        ("other-name", "wrong-place", binding(), binding(name="cache")),
        ("other-data-key", "wrong-place", binding(), binding(dataKey="username")),
        ("namespace-and-name-swapped", "wrong-place", binding(), binding(namespace="db", name="shop")),
        (
            "border-between-names-shifted",
            "wrong-place",
            binding(namespace="sh", name="opdb"),
            binding(namespace="shop", name="db"),
        ),
        ("scope-widened-to-namespace", "wrong-place", binding(), binding(scope="Namespace")),
        ("scope-widened-to-cluster", "wrong-place", binding(), binding(scope="Cluster")),
        ("scope-narrowed-to-strict", "wrong-place", binding(scope="Cluster"), binding()),
        (
            "namespace-scope-in-other-namespace",
            "wrong-place",
            binding(scope="Namespace"),
            binding(scope="Namespace", namespace="web"),
        ),
        (
            "cluster-scope-under-other-data-key",
            "wrong-place",
            binding(scope="Cluster"),
            binding(scope="Cluster", dataKey="username"),
        ),
        ("purpose-datakey-as-secret", "wrong-purpose", binding(purpose="datakey"), binding()),
        ("purpose-secret-as-file", "wrong-purpose", binding(), binding(purpose="file")),
    ]
    contexts: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("missing", {"team": "payments"}, {}),
        ("added", {}, {"team": "payments"}),
        ("other-value", {"team": "payments"}, {"team": "orders"}),
        ("other-case", {"team": "payments"}, {"Team": "payments"}),
        ("pair-more", {"team": "payments"}, {"team": "payments", "env": "prod"}),
        ("values-swapped", {"a": "1", "b": "2"}, {"a": "2", "b": "1"}),
        ("key-and-value-swapped", {"a": "b"}, {"b": "a"}),
        ("border-shifted", {"ab": "c"}, {"a": "bc"}),
        ("other-normalisation", {"\u00e9": "v"}, {"e\u0301": "v"}),
    ]
    changes += [
        (f"context-{name}", "wrong-context", binding(encryptionContext=sealed), binding(encryptionContext=used))
        for name, sealed, used in contexts
    ]
    return [
        bad(name, expect, text(seal(name, b"value", sealed)), bound=used, sealed_for=sealed)
        for name, expect, sealed, used in changes
    ]


def build() -> str:
    """The file's text."""
    document = {
        "format": "strongroom blob",
        "formatVersion": 1,
        "failureClasses": FAILURE_CLASSES,
        "good": good_vectors(),
        "bad": bad_vectors(),
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(build(), encoding="ascii")
