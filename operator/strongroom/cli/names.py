# SPDX-License-Identifier: Apache-2.0
"""Names as Kubernetes allows them; checked before they become part of a URL or a manifest."""

import re

from strongroom.cli.failure import Place, invalid
from strongroom.model.limits import MAX_DATA_KEY_LENGTH, MAX_KEY_NAME_LENGTH

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_MAX_LABEL = 63
_MAX_SUBDOMAIN = 253


def check_namespace(name: str, place: Place | None = None) -> str:
    """A namespace (RFC 1123 label)."""
    return _checked(_LABEL, _MAX_LABEL, "namespace", name, place)


def check_object_name(name: str, place: Place | None = None) -> str:
    """The name of a Secret (RFC 1123 subdomain)."""
    return _checked(_SUBDOMAIN, _MAX_SUBDOMAIN, "name", name, place)


def check_key_name(name: str, place: Place | None = None) -> str:
    """The name of a master key."""
    return _checked(_SUBDOMAIN, MAX_KEY_NAME_LENGTH, "key name", name, place)


def check_data_key(name: str, place: Place | None = None) -> str:
    """A key of a Secret's data."""
    if not _DATA_KEY.fullmatch(name) or len(name) > MAX_DATA_KEY_LENGTH or name == "." or name.startswith(".."):
        raise invalid(
            f"data key {name!r} is not allowed",
            hint=f"Use at most {MAX_DATA_KEY_LENGTH} letters, digits, '-', '_' and '.'; not '.', not '..' at the start",
            place=place,
        )
    return name


def _checked(pattern: re.Pattern[str], limit: int, what: str, name: str, place: Place | None) -> str:
    if not pattern.fullmatch(name) or len(name) > limit:
        raise invalid(
            f"{what} {name!r} is not a valid Kubernetes name",
            hint=f"Use lower-case letters, digits and '-', at most {limit} characters",
            place=place,
        )
    return name
