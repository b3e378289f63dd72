# SPDX-License-Identifier: Apache-2.0
"""Strict base64 (RFC 4648 section 4, with padding); the standard library's strictness differs between versions."""

import base64
import re

_STRICT = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def decode(text: str) -> bytes:
    """Raises ValueError, which quotes nothing."""
    if not _STRICT.fullmatch(text):
        raise ValueError("not base64")
    return base64.b64decode(text)


def encode(value: bytes) -> str:
    """The canonical text."""
    return base64.b64encode(value).decode()
