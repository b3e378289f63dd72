# SPDX-License-Identifier: Apache-2.0
"""Vectors of AES-256-GCM: algorithm 1, which also stand for what is the same under all, and 7."""

from typing import Any

from tests.vectors.reference import (
    GCM,
    GCM_16,
    OTHER_KEY_ID,
    VERSION,
    Binding,
    binding,
    fixed,
    header,
    seal_gcm,
)
from tests.vectors.testkeys import OTHER_AES_KEY
from tests.vectors.vector import bad, flipped, good, moved, plaintext_of, text


def opens(
    name: str, plaintext: bytes, bound: Binding, *, version: int = VERSION, nonce_size: int = 12
) -> dict[str, Any]:
    algorithm = GCM if nonce_size == 12 else GCM_16
    head = header(version=version, algorithm=algorithm)
    blob = seal_gcm(name, plaintext, bound, head=head, nonce_size=nonce_size)
    nonce = fixed(name, nonce_size)
    return good(name, blob, plaintext, bound, header=head, nonce=nonce, algorithm=algorithm, version=version)


def good_vectors() -> list[dict[str, Any]]:
    sixteen = {f"key-{number:02}": f"value {number}" for number in range(16)}
    # By UTF-8 bytes: B, a, U+FF5E, U+1F511. By UTF-16 units U+1F511 (a surrogate pair) comes before U+FF5E.
    orders = {"\U0001f511": "U+1F511", "\uff5e": "U+FF5E", "a": "lower", "B": "upper"}
    return [
        opens("worked-example", b"hunter2", binding()),
        *(opens(f"size-{size}", plaintext_of(size), binding()) for size in (0, 1, 2, 3, 15, 16, 17, 4095, 4096)),
        *(opens(f"scope-{scope}", b"value", binding(scope=scope)) for scope in ("Strict", "Namespace", "Cluster")),
        *(opens(f"purpose-{purpose}", b"value", binding(purpose=purpose)) for purpose in ("secret", "datakey", "file")),
        opens("scope-Namespace-purpose-datakey", b"value", binding(scope="Namespace", purpose="datakey")),
        opens("scope-Cluster-purpose-file", b"value", binding(scope="Cluster", purpose="file")),
        opens("first-version", b"value", binding(), version=1),
        opens("last-version", b"value", binding(), version=2**32 - 1),
        opens("longest-names", b"value", binding(namespace="n" * 63, name="m" * 253, dataKey="k" * 253)),
        opens("data-key-with-every-kind-of-character", b"value", binding(dataKey="tls-1_2.KEY")),
        opens("context-empty", b"value", binding(encryptionContext={})),
        opens("context-16-pairs", b"value", binding(encryptionContext=sixteen)),
        opens("context-1024-bytes", b"value", binding(encryptionContext={"k": "v" * 1023})),
        opens("context-empty-value", b"value", binding(encryptionContext={"team": ""})),
        opens("context-not-ascii", b"value", binding(encryptionContext={"équipe": "Zahlungen für Köln", "鍵": "値"})),
        opens("context-not-normalised", b"value", binding(encryptionContext={"\u00e9": "composed", "e\u0301": "not"})),
        opens("context-sorted-by-utf-8-not-utf-16", b"value", binding(encryptionContext=orders)),
        opens("context-prefix-keys", b"value", binding(encryptionContext={"ab": "c", "a": "bc", "abc": ""})),
        *(opens(f"nonce-16-size-{size}", plaintext_of(size), binding(), nonce_size=16) for size in (0, 1, 16, 4096)),
        opens("nonce-16-scope-Cluster", b"value", binding(scope="Cluster"), nonce_size=16),
    ]


def bad_vectors() -> list[dict[str, Any]]:
    return [*bad_texts(), *truncations(), *bad_fields(), *flipped_bits(), *bindings_changed(), *bad_16_byte_nonces()]


def bad_texts() -> list[dict[str, Any]]:
    one = text(seal_gcm("bad-text", b"v", binding()))  # 53 bytes: one padding character
    two = text(seal_gcm("bad-text", b"vv", binding()))  # 54 bytes: no padding
    three = text(seal_gcm("bad-text", b"vvv", binding()))  # 55 bytes: two padding characters
    # The last character before the padding holds bits that no byte takes; they must be zero.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    trailing_one = one[:-2] + alphabet[alphabet.index(one[-2]) + 1] + "="
    trailing_two = three[:-3] + alphabet[alphabet.index(three[-3]) + 1] + "=="
    url_safe = text(seal_gcm("bad-text", b"\xff" * 64, binding()))
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
        bad("hexadecimal", "unsupported", seal_gcm("bad-text", b"vv", binding()).hex()),
        bad("byte-after", "forged", text(seal_gcm("bad-text", b"v", binding()) + b"\0")),
    ]


def truncations() -> list[dict[str, Any]]:
    """Every length below the shortest blob of 52 bytes, and what is long enough but lacks its end."""
    shortest = seal_gcm("truncated", b"", binding())
    longer = seal_gcm("truncated", b"value", binding())
    return [
        *(bad(f"truncated-to-{size:02}-bytes", "unsupported", text(shortest[:size])) for size in (1, 2)),
        *(bad(f"truncated-to-{size:02}-bytes", "malformed", text(shortest[:size])) for size in range(3, 52)),
        *(bad(f"truncated-by-{size}-bytes", "forged", text(longer[:-size])) for size in (1, 2, 3, 4, 5)),
        bad("truncated-at-the-front", "unsupported", text(longer[1:])),
    ]


def bad_fields() -> list[dict[str, Any]]:
    def sealed(expect: str, name: str, **fields: Any) -> dict[str, Any]:
        return bad(name, expect, text(seal_gcm(name, b"value", binding(), head=header(**fields))))

    def oversized(name: str, size: int) -> dict[str, Any]:
        return bad(name, "too-large", text(seal_gcm(name, plaintext_of(size), binding())))

    return [
        sealed("unsupported", "magic-of-a-next-version", magic=b"SR2"),
        sealed("unsupported", "magic-lower-case", magic=b"sr1"),
        sealed("unsupported", "magic-zero", magic=b"\0\0\0"),
        *(sealed("unsupported", f"algorithm-{n:03}", algorithm=n) for n in (0, 4, 5, 8, 15, 16, 128, 255)),
        *(sealed("malformed", f"algorithm-{n:03}", algorithm=n) for n in (2, 3, 6)),
        sealed("unsupported", "algorithm-007-of-a-key-of-another", algorithm=7),
        sealed("malformed", "version-0", version=0),
        sealed("wrong-version", "version-unknown", version=VERSION + 1),
        sealed("wrong-version", "version-byte-order-swapped", version=int.from_bytes(VERSION.to_bytes(4, "little"))),
        sealed("wrong-key", "key-id-of-another-key", key_id=OTHER_KEY_ID),
        sealed("wrong-key", "key-id-zero", key_id=bytes(16)),
        oversized("size-4097", 4097),
        oversized("size-longest-text", 6216 // 4 * 3 - 52),
        bad("text-longer-than-any-blob", "too-large", text(seal_gcm("long", plaintext_of(4611), binding()))),
        bad("text-longer-than-any-blob-and-not-base64", "too-large", "!" * 6217),
        bad("other-key-material", "forged", text(seal_gcm("other", b"value", binding(), key=OTHER_AES_KEY))),
    ]


def flipped_bits() -> list[dict[str, Any]]:
    blob = seal_gcm("flipped", b"value", binding())
    return flipped(
        blob,
        {
            "magic": (0, 3, "unsupported"),
            "algorithm": (3, 4, "unsupported"),
            "key-id": (4, 20, "wrong-key"),
            "version": (20, 24, "wrong-version"),
            "nonce": (24, 36, "forged"),
            "ciphertext": (36, len(blob) - 16, "forged"),
            "tag": (len(blob) - 16, len(blob), "forged"),
        },
    )


def bindings_changed() -> list[dict[str, Any]]:
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
        bad(name, expect, text(seal_gcm(name, b"value", sealed)), bound=used, sealed_for=sealed)
        for name, expect, sealed, used in changes
    ]


def bad_16_byte_nonces() -> list[dict[str, Any]]:
    """Algorithm 7."""

    def seal(name: str, bound: Binding, plaintext: bytes = b"value", **options: Any) -> bytes:
        return seal_gcm(name, plaintext, bound, nonce_size=16, **options)

    def refused(name: str, expect: str, blob: bytes) -> dict[str, Any]:
        return bad(f"nonce-16-{name}", expect, text(blob), algorithm=GCM_16)

    blob = seal("nonce-16", binding(), plaintext_of(32))  # as long as one of algorithm 6 could be
    as_gcm = header() + blob[24:]
    return [
        *(refused(f"truncated-to-{size}-bytes", "malformed", blob[:size]) for size in (24, 40, 55)),
        refused("relabelled-as-algorithm-1", "unsupported", as_gcm),
        refused(
            "relabelled-from-algorithm-1",
            "forged",
            header(algorithm=GCM_16) + seal_gcm("x", b"value" * 4, binding())[24:],
        ),
        refused("nonce-of-12-bytes", "forged", seal_gcm("y", b"value", binding(), head=header(algorithm=GCM_16))),
        refused("size-4097", "too-large", seal("nonce-16-too-large", binding(), plaintext_of(4097))),
        refused("other-key-material", "forged", seal("nonce-16-other", binding(), key=OTHER_AES_KEY)),
        *flipped(
            blob,
            {
                "algorithm": (3, 4, "unsupported"),
                "key-id": (4, 20, "wrong-key"),
                "version": (20, 24, "wrong-version"),
                "nonce": (24, 40, "forged"),
                "ciphertext": (40, len(blob) - 16, "forged"),
                "tag": (len(blob) - 16, len(blob), "forged"),
            },
            prefix="nonce-16-",
            algorithm=GCM_16,
        ),
        *moved("nonce-16-", GCM_16, seal),
    ]
