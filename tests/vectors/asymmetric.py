# SPDX-License-Identifier: Apache-2.0
"""Vectors of RSA-OAEP with AES-256-GCM: algorithms 2 and 3."""

from typing import Any

from tests.vectors.reference import (
    OAEP_HASHES,
    RSA_SHA1,
    RSA_SHA256,
    Binding,
    binding,
    content_key,
    fixed,
    header,
    oaep,
    raw_rsa,
    rsa_header,
    seal_gcm,
    seal_rsa,
    wrap,
)
from tests.vectors.testkeys import RSA_KEYS
from tests.vectors.vector import bad, flipped, good, moved, plaintext_of, text

MODULUS = 384
"""Bytes of RSA_3072, which is used unless said otherwise."""


def good_vectors() -> list[dict[str, Any]]:
    def opens(what: str, plaintext: bytes, bound: Binding, algorithm: int, rsa_key: str = "RSA_3072") -> dict[str, Any]:
        name = f"oaep-{OAEP_HASHES[algorithm]}-{what}"
        wrapped_key = wrap(name, algorithm, rsa_key=rsa_key)
        return good(
            name,
            seal_rsa(name, plaintext, bound, algorithm=algorithm, rsa_key=rsa_key),
            plaintext,
            bound,
            header=rsa_header(algorithm, wrapped_key),
            nonce=fixed(name, 12),
            algorithm=algorithm,
            rsa_key=rsa_key,
            contentKey=content_key(name).hex(),
            wrappedKey=wrapped_key.hex(),
        )

    return [
        vector
        for algorithm in OAEP_HASHES
        for vector in (
            *(opens(f"size-{size}", plaintext_of(size), binding(), algorithm) for size in (0, 1, 16, 4096)),
            opens("rsa-4096", b"value", binding(), algorithm, "RSA_4096"),
            opens("rsa-4096-size-4096", plaintext_of(4096), binding(), algorithm, "RSA_4096"),
            opens("scope-Namespace", b"value", binding(scope="Namespace"), algorithm),
            opens("scope-Cluster-purpose-file", b"value", binding(scope="Cluster", purpose="file"), algorithm),
            opens("context-empty", b"value", binding(encryptionContext={}), algorithm),
        )
    ]


def bad_vectors() -> list[dict[str, Any]]:
    return [
        *lengths(),
        *wrapped_keys(),
        *wrapped_otherwise(),
        *flipped_bits(),
        *(
            vector
            for algorithm in OAEP_HASHES
            for vector in moved(_prefix(algorithm), algorithm, _seal_with(algorithm))
        ),
    ]


def _prefix(algorithm: int) -> str:
    return f"oaep-{OAEP_HASHES[algorithm]}-"


def _seal_with(algorithm: int) -> Any:
    return lambda name, bound: seal_rsa(name, b"value", bound, algorithm=algorithm)


def _refused(name: str, expect: str, blob: bytes, algorithm: int = RSA_SHA256) -> dict[str, Any]:
    return bad(_prefix(algorithm) + name, expect, text(blob), algorithm=algorithm)


def lengths() -> list[dict[str, Any]]:
    blob = seal_rsa("oaep-lengths", b"value", binding())
    body = 26 + MODULUS

    def relength(length: int) -> bytes:
        return blob[:24] + length.to_bytes(2) + blob[26:]

    long = seal_rsa("oaep-lengths-long", plaintext_of(300), binding())
    return [
        *(_refused(f"truncated-to-{size}-bytes", "malformed", blob[:size]) for size in (24, 25, 26, 27)),
        *(_refused(f"truncated-to-{size}-bytes", "malformed", blob[:size]) for size in (body - 1, body, body + 27)),
        _refused("truncated-by-a-byte", "forged", blob[:-1]),
        _refused("byte-after", "forged", blob + b"\0"),
        *(_refused(f"length-{length}", "malformed", relength(length)) for length in (0, 1, 383, 385, 512, 65535)),
        _refused("length-little-endian", "malformed", relength(int.from_bytes(MODULUS.to_bytes(2, "little")))),
        _refused("length-missing", "malformed", blob[:24] + blob[26:]),
        _refused("length-512-under-a-key-of-3072-bits", "forged", long[:24] + (512).to_bytes(2) + long[26:]),
        _refused(
            "sealed-for-another-modulus", "forged", seal_rsa("oaep-4096", b"value", binding(), rsa_key="RSA_4096")
        ),
        _refused(
            "sealed-as-algorithm-1", "malformed", header(algorithm=RSA_SHA256) + seal_gcm("o", b"v", binding())[24:]
        ),
        _refused("size-4097", "too-large", seal_rsa("oaep-4097", plaintext_of(4097), binding())),
        _refused("version-0", "malformed", seal_rsa("oaep-version-0", b"value", binding(), version=0)),
    ]


def wrapped_keys() -> list[dict[str, Any]]:
    """The tag would be right under the key that is wrapped; what is wrong is the wrapped key."""

    def sealed(what: str, wrapped_key: bytes, key: bytes | None = None, covered: bytes | None = None) -> dict[str, Any]:
        name = f"oaep-{what}"
        blob = seal_rsa(name, b"value", binding(), wrapped_key=wrapped_key, key=key, covered=covered)
        return _refused(what, "forged", blob)

    other = "oaep-of-another-value"
    modulus = RSA_KEYS["RSA_3072"].public_key().public_numbers().n
    return [
        sealed("wrapped-key-of-another-value", wrap(other)),
        sealed("wrapped-key-zero", bytes(MODULUS)),
        sealed("wrapped-key-one", bytes(MODULUS - 1) + b"\x01"),
        sealed("wrapped-key-is-the-modulus", modulus.to_bytes(MODULUS)),
        sealed("wrapped-key-above-the-modulus", b"\xff" * MODULUS),
        sealed("wrapped-key-not-covered", wrap("oaep-wrapped-key-not-covered"), covered=header(algorithm=RSA_SHA256)),
        sealed(
            "length-not-covered",
            wrap("oaep-length-not-covered"),
            covered=header(algorithm=RSA_SHA256) + wrap("oaep-length-not-covered"),
        ),
        sealed(
            "key-wrapped-again-with-another-seed",
            wrap("oaep-key-wrapped-again-with-another-seed", seed_name="again"),
            covered=rsa_header(RSA_SHA256, wrap("oaep-key-wrapped-again-with-another-seed")),
        ),
    ]


def wrapped_otherwise() -> list[dict[str, Any]]:
    """Wrapped for this key, but not as the algorithm says."""
    vectors = []
    for algorithm, other in ((RSA_SHA1, RSA_SHA256), (RSA_SHA256, RSA_SHA1)):
        hash_name, other_hash = OAEP_HASHES[algorithm], OAEP_HASHES[other]

        def sealed(
            what: str, message: bytes | None = None, algorithm: int = algorithm, **options: Any
        ) -> dict[str, Any]:
            name = _prefix(algorithm) + what
            options = {"hash_name": OAEP_HASHES[algorithm], "seed_name": name} | options
            wrapped = oaep("RSA_3072", content_key(name) if message is None else message, **options)
            blob = seal_rsa(name, b"value", binding(), algorithm=algorithm, wrapped_key=wrapped)
            return _refused(what, "forged", blob, algorithm)

        plain = f"oaep-{hash_name}-plain"
        version_1_5 = b"\0\x02" + b"\x55" * (MODULUS - 35) + b"\0" + content_key(plain)
        unpadded = bytes(MODULUS - 32) + content_key(plain)
        vectors += [
            sealed("with-the-other-hash", hash_name=other_hash),
            sealed("with-the-other-mgf1-hash", mgf_hash=other_hash),
            sealed("with-a-label", label=b"strongroom/v1"),
            *(
                sealed(f"key-of-{size}-bytes", fixed("short", 32)[:size] + bytes(max(0, size - 32)))
                for size in (0, 16, 31, 33)
            ),
            *(
                _refused(
                    what,
                    "forged",
                    seal_rsa(plain, b"value", binding(), algorithm=algorithm, wrapped_key=raw_rsa("RSA_3072", padded)),
                    algorithm,
                )
                for what, padded in (("pkcs1-version-1.5", version_1_5), ("unpadded", unpadded))
            ),
            _refused(
                "relabelled-as-the-other-hash",
                "unsupported",
                seal_rsa(f"oaep-{hash_name}-relabelled", b"value", binding(), algorithm=other),
                algorithm,
            ),
        ]
    return vectors


def flipped_bits() -> list[dict[str, Any]]:
    blob = seal_rsa("oaep-flipped", b"value", binding())
    end = 26 + MODULUS
    fields = {
        "magic": (0, 3, "unsupported"),
        "algorithm": (3, 4, "unsupported"),
        "key-id": (4, 20, "wrong-key"),
        "version": (20, 24, "wrong-version"),
        "length": (24, 26, "malformed"),
        "wrapped-key": (26, end, "forged"),
        "nonce": (end, end + 12, "forged"),
        "ciphertext": (end + 12, len(blob) - 16, "forged"),
        "tag": (len(blob) - 16, len(blob), "forged"),
    }
    return flipped(blob, fields, prefix=_prefix(RSA_SHA256), algorithm=RSA_SHA256)
