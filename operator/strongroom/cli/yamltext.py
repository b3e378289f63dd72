# SPDX-License-Identifier: Apache-2.0
"""YAML text ↔ trees that keep comments and order; written so that every reader sees the same strings.

Kubernetes tools read YAML 1.1 (`no`, `on`, `y` are booleans), the writer here knows only YAML 1.2, where those are
strings and go without quotes. So strings are quoted here, by a rule that does not depend on any reader.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, ScalarString

from strongroom.cli.failure import Place, invalid

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/+=-]*")
_WORDS_WITH_MEANING = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Booleans and null of YAML 1.1 and 1.2, in lower case. What else is not a string starts with no letter."""
_MAX_NODES = 1_000_000
"""Of one document with its aliases written out. Without aliases, a document of so many nodes has megabytes."""


def quoted(text: str) -> str:
    """`text` for a tree: as it is if no YAML reader could take it for anything but this string, else in double
    quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_WITH_MEANING:
        return text
    in_quotes: str = DoubleQuotedScalarString(text)
    return in_quotes


def unquoted_word(value: object) -> bool:
    """Whether a parsed string stands without quotes where YAML 1.1 readers see a boolean."""
    return isinstance(value, str) and not isinstance(value, ScalarString) and value.lower() in _WORDS_WITH_MEANING


def load(text: str, place: Place) -> Any:
    """One document. Raises CommandError that says where, and nothing of what stands there: YAML errors quote values."""
    try:
        tree = _round_trip().load(text)
        nodes = _count_nodes(tree, place, {})
    except MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1} of the document" if error.problem_mark else ""
        raise invalid(f"not valid YAML{line}", hint="Correct it (duplicate keys count too)", place=place) from None
    except (YAMLError, ValueError, RecursionError):
        raise invalid("not valid YAML", hint="Correct it", place=place) from None
    if nodes > _MAX_NODES:
        raise invalid(
            f"aliases make it more than {_MAX_NODES} nodes", hint="Use fewer aliases inside aliases", place=place
        )
    return tree


@dataclass(frozen=True, slots=True)
class Indentation:
    """Columns per level, as ruamel.yaml counts them."""

    mapping: int = 2
    sequence: int = 2
    offset: int = 0
    """Of the dash, within `sequence`."""

    @classmethod
    def of(cls, tree: Any) -> "Indentation":
        """As found below the root of a tree that was read from text; two spaces and dashes that are not indented where
        nothing tells."""
        mapping, sequence, offset = 2, 2, 0
        for value in tree.values() if isinstance(tree, CommentedMap) else ():
            if not isinstance(value, CommentedMap | CommentedSeq) or not value or value.fa.flow_style():
                continue
            if isinstance(value, CommentedMap):
                mapping = max(value.lc.col - tree.lc.col, 1)
            elif isinstance(value[0], CommentedMap):
                offset = max(value.lc.col - tree.lc.col, 0)
                sequence = max(value[0].lc.col - tree.lc.col, offset + 2)
        return cls(mapping, sequence, offset)


def dump(tree: Any, indentation: Indentation) -> str:
    """The text of one document without `---`."""
    yaml = _round_trip()
    yaml.indent(mapping=indentation.mapping, sequence=indentation.sequence, offset=indentation.offset)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def from_json(value: Any) -> Any:
    """A tree like one read from YAML, for a document that came as JSON."""
    if isinstance(value, dict):
        return CommentedMap((quoted(key), from_json(item)) for key, item in value.items())
    if isinstance(value, list):
        return CommentedSeq(from_json(item) for item in value)
    return quoted(value) if isinstance(value, str) else value


def to_json(tree: Any) -> Any:
    """Plain dicts, lists and scalars; a date becomes the text that Kubernetes would see."""
    if isinstance(tree, Mapping):
        return {str(key): to_json(item) for key, item in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [to_json(item) for item in tree]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    return tree.isoformat() if hasattr(tree, "isoformat") else str(tree)


def _count_nodes(node: Any, place: Place, counts: dict[int, int | None]) -> int:
    """Nodes of a tree with its aliases written out. `counts` holds what is known, by id, None where counting is under
    way: an alias is the very object that its anchor names, and is not walked through again."""
    if isinstance(node, Mapping):
        children = list(node.values())
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        children = list(node)
    else:
        return 1
    if id(node) not in counts:
        counts[id(node)] = None
        counts[id(node)] = 1 + sum(_count_nodes(child, place, counts) for child in children)
    known = counts[id(node)]
    if known is None:
        raise invalid("an alias stands inside what it names", hint="Remove the alias", place=place)
    return known


def _round_trip() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10**9  # never fold: a ciphertext stays on one line
    return yaml
