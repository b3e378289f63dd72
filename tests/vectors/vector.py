# SPDX-License-Identifier: Apache-2.0
"""Entries of the file, and what the vectors of every algorithm have in common."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from tests.vectors.reference import CBC_HMAC, GCM, KEY_ID, OAEP_HASHES, VERSION, Binding, additional_data, binding
from tests.vectors.testkeys import AES_KEY, AUTHENTICATION_KEY

Entry = dict[str, Any]


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def plaintext_of(size: int) -> bytes:
    return bytes((7 * position + 3) % 256 for position in range(size))


def keys_of(algorithm: int, rsa_key: str) -> dict[str, str]:
    """What opens values of the key version."""
    if algorithm in OAEP_HASHES:
        return {"privateKey": rsa_key}
    authentication = {"authenticationKey": AUTHENTICATION_KEY.hex()} if algorithm == CBC_HMAC else {}
    return {"key": AES_KEY.hex(), **authentication}


def good(
    name: str,
    blob: bytes,
    plaintext: bytes,
    bound: Binding,
    *,
    header: bytes,
    nonce: bytes,
    algorithm: int = GCM,
    version: int = VERSION,
    rsa_key: str = "RSA_3072",
    **made_with: str,
) -> Entry:
    """A blob that opens. `header` is every byte before the nonce; `made_with`: what else it was made with."""
    return {
        "name": name,
        "algorithm": algorithm,
        **keys_of(algorithm, rsa_key),
        "keyId": KEY_ID.hex(),
        "version": version,
        **made_with,
        "nonce": nonce.hex(),
        "plaintext": plaintext.hex(),
        "binding": bound,
        "aad": additional_data(header, bound).hex(),
        "blob": text(blob),
    }


def bad(
    name: str,
    expect: str,
    blob: str,
    *,
    algorithm: int = GCM,
    rsa_key: str = "RSA_3072",
    bound: Binding | None = None,
    sealed_for: Binding | None = None,
) -> Entry:
    """A blob that must fail with class `expect` under a key version of this algorithm. `sealedFor`: the binding under
    which it does open."""
    vector = {
        "name": name,
        "expect": expect,
        "algorithm": algorithm,
        **keys_of(algorithm, rsa_key),
        "keyId": KEY_ID.hex(),
        "versions": [VERSION],
        "binding": bound or binding(),
        "blob": blob,
    }
    return vector | ({"sealedFor": sealed_for} if sealed_for else {})


def flipped(
    blob: bytes, fields: dict[str, tuple[int, int, str]], *, prefix: str = "", algorithm: int = GCM
) -> list[Entry]:
    """One bit of every field, the lowest of its first and the highest of its last byte."""
    vectors = []
    for field, (start, end, expect) in fields.items():
        for where, position, mask in (("first", start, 0x01), ("last", end - 1, 0x80)):
            changed = bytearray(blob)
            changed[position] ^= mask
            name = f"{prefix}flipped-{field}-{where}-byte"
            vectors.append(bad(name, expect, text(bytes(changed)), algorithm=algorithm))
    return vectors


def moved(prefix: str, algorithm: int, seal: Callable[[str, Binding], bytes]) -> Iterator[Entry]:
    """One change each of what every algorithm's tag covers beside the header."""
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("other-namespace", "wrong-place", {"namespace": "web"}),
        ("other-name", "wrong-place", {"name": "cache"}),
        ("other-data-key", "wrong-place", {"dataKey": "username"}),
        ("scope-widened-to-cluster", "wrong-place", {"scope": "Cluster"}),
        ("other-purpose", "wrong-purpose", {"purpose": "file"}),
        ("context-other-value", "wrong-context", {"encryptionContext": {"team": "orders"}}),
    ]
    for what, expect, change in changes:
        name = f"{prefix}{what}"
        blob = text(seal(name, binding()))
        yield bad(name, expect, blob, algorithm=algorithm, bound=binding(**change), sealed_for=binding())
