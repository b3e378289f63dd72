# SPDX-License-Identifier: Apache-2.0
"""Writes blob-v1.json, the test vectors of docs/format.md: `python -m tests.vectors.build`.

It shares no code with the operator: `reference` spells the format out a second time. Everything is fixed, so the file
is always the same.
"""

import json
from pathlib import Path

from tests.vectors import asymmetric, blockcipher, gcm
from tests.vectors.testkeys import RSA_KEYS, pem

FILE = Path(__file__).with_name("blob-v1.json")

FAILURE_CLASSES = {
    "malformed": "Not the canonical text of a blob: base64, lengths or a field out of range.",
    "unsupported": "Another format, an algorithm that is reserved or unknown, or not that of the key version.",
    "too-large": "The plaintext would exceed 4096 bytes, or the text 6216 characters.",
    "wrong-key": "Names a key id other than the key's.",
    "wrong-version": "Names a version that the key does not have.",
    "forged": "Does not verify, in whatever step: some byte differs, or another key or another way sealed it.",
    "wrong-context": "The tag does not verify: sealed with another encryption context.",
    "wrong-place": "The tag does not verify: sealed for another namespace, name or data key, or another scope.",
    "wrong-purpose": "The tag does not verify: sealed for another purpose.",
}
ALGORITHMS = (gcm, asymmetric, blockcipher)


def build() -> str:
    """The file's text."""
    document = {
        "format": "strongroom blob",
        "formatVersion": 1,
        "failureClasses": FAILURE_CLASSES,
        "warning": "Every key here, private keys included, is a test key, made for this file. Never use one of them.",
        "privateKeys": {name: pem(name) for name in RSA_KEYS},
        "good": [vector for algorithm in ALGORITHMS for vector in algorithm.good_vectors()],
        "bad": [vector for algorithm in ALGORITHMS for vector in algorithm.bad_vectors()],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(build(), encoding="ascii")
