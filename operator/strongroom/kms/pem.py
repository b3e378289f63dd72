# SPDX-License-Identifier: Apache-2.0
"""Public keys as text (RFC 7468), for people and for `openssl`."""

import base64
import textwrap


def public_key(der: bytes) -> str:
    """A SubjectPublicKeyInfo as PEM, with a line end at its end."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""))
