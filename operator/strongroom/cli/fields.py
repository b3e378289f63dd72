# SPDX-License-Identifier: Apache-2.0
"""Typed reading of a parsed manifest. Errors name the field and the place, never a value."""

from collections.abc import Mapping
from typing import Any

from strongroom.cli import names
from strongroom.cli.failure import Place, invalid
from strongroom.cli.yamltext import unquoted_word


def mapping(node: Mapping[str, Any], field: str, place: Place) -> Mapping[str, Any]:
    """A mapping; empty if absent or null."""
    value = node.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise invalid(f"{field} is not a mapping", hint="Use 'key: value' lines", place=place)
    return value


def string(node: Mapping[str, Any], field: str, place: Place) -> str:
    """A string that every YAML reader takes for this string; empty if absent or null."""
    value = node.get(field)
    return "" if value is None else _string(value, f"{field} is", place)


def strings(node: Mapping[str, Any], field: str, place: Place) -> dict[str, str]:
    """A mapping of strings to strings; empty if absent or null."""
    result: dict[str, str] = {}
    for key, value in mapping(node, field, place).items():
        name = _string(key, f"a key in {field} is", place)
        result[name] = _string(value, f"a value in {field} is", place.at(name))
    return result


def boolean(node: Mapping[str, Any], field: str, place: Place) -> bool | None:
    """True, false, or None if absent or null."""
    value = node.get(field)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{field} is not a boolean", hint="Use true or false", place=place)
    return value


def object_name(metadata: Mapping[str, Any], place: Place) -> str:
    """metadata.name; required."""
    name = string(metadata, "name", place)
    if not name:
        raise invalid(
            "metadata.name is missing",
            hint="Name it: values are bound to the name, it cannot be generated",
            place=place,
        )
    return names.check_object_name(name, place)


def namespace(metadata: Mapping[str, Any], place: Place) -> str:
    """metadata.namespace; empty if absent."""
    value = string(metadata, "namespace", place)
    return names.check_namespace(value, place) if value else ""


def _string(value: object, what: str, place: Place) -> str:
    if not isinstance(value, str) or unquoted_word(value):
        raise invalid(
            f"{what} not a string to every YAML reader, but a number, boolean, date or null without quotes",
            hint="Put it in double quotes",
            place=place,
        )
    return str(value)
