# SPDX-License-Identifier: Apache-2.0
"""Comments of a YAML tree, so that they follow their keys into a tree of another shape.

The parser hangs a comment on whatever stands before it, at any depth. Here a comment belongs to the key on its line, or
to the next key below; what follows the last key is the trailer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.scalarstring import FoldedScalarString, LiteralScalarString
from ruamel.yaml.tokens import CommentToken

from strongroom.cli.yamltext import quoted

Path = tuple[str, ...]


@dataclass(slots=True)
class Comment:
    """What belongs to one key."""

    before: list[str] = field(default_factory=list)
    """Lines above it, without indentation; an empty one is a blank line."""
    behind: str = ""
    """On its own line, `#` included."""


@dataclass(slots=True)
class Comments:
    """All comments of one mapping and what is below it."""

    by_path: dict[Path, Comment] = field(default_factory=dict)
    trailer: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, tree: CommentedMap) -> "Comments":
        """Collect, leaving the tree as it is."""
        comments = cls(trailer=list(_lines(_tokens((tree.ca.comment or (None, None))[1]))))
        comments._collect(tree, ())
        return comments

    def at(self, *path: str) -> Comment:
        """The comment of one key; empty if it has none."""
        return self.by_path.get(path) or Comment()

    def texts(self) -> Iterator[str]:
        """Every line of every comment."""
        for comment in self.by_path.values():
            yield from (*comment.before, comment.behind)
        yield from self.trailer

    def _collect(self, node: Any, path: Path) -> None:
        pairs = node.items() if isinstance(node, CommentedMap) else enumerate(node)
        for key, value in pairs:
            entry = list(node.ca.items.get(key) or ()) + [None] * 4
            on_value, below = (entry[2], entry[3]) if isinstance(node, CommentedMap) else (entry[0], entry[1])
            above = _tokens(entry[1]) if isinstance(node, CommentedMap) else ()
            comment = Comment(before=[*self.trailer, *_lines(above)])
            behind, following = _split(on_value, block=isinstance(value, LiteralScalarString | FoldedScalarString))
            header = getattr(value, "comment", "")  # `key: | # like this`
            comment.behind = behind or (header.strip() if isinstance(header, str) else "")
            self.trailer = following
            self.trailer.extend(_lines(_tokens(below)))
            if isinstance(node, CommentedMap):
                self.by_path[(*path, str(key))] = comment
            if isinstance(value, CommentedMap | CommentedSeq):
                self._collect(value, (*path, str(key)))
        self.trailer.extend(_lines(_tokens(node.ca.end)))


def put(target: CommentedMap, key: str, value: Any, comment: Comment | None = None, *, column: int) -> None:
    """Set `key` as the last one of `target`, with its comment; `column` is where the key will stand."""
    first = not target
    target[quoted(key)] = quoted(value) if isinstance(value, str) else value
    if comment is None or not (comment.before or comment.behind):
        return
    before = dropwhile(lambda line: first and not line, comment.before)  # a block does not start with a blank line
    above = [_token(line + "\n", column if line else 0) for line in before]
    behind = _token(comment.behind + "\n", 0) if comment.behind else None
    target.ca.items[key] = [None, above or None, behind, None]


def put_trailer(tree: CommentedMap, lines: Iterable[str], *, column: int) -> None:
    """Put lines behind everything in `tree`, which ends in a scalar."""
    text = "".join(" " * column + line + "\n" if line else "\n" for line in lines)
    if not text:
        return
    last = next(reversed(tree))
    while isinstance(tree[last], CommentedMap) and tree[last]:
        tree, last = tree[last], next(reversed(tree[last]))
    entry = tree.ca.items.setdefault(last, [None, None, None, None])
    behind = entry[2].value if entry[2] else "\n"
    entry[2] = _token(behind + text, 0)


def _token(text: str, column: int) -> CommentToken:
    return CommentToken(text, CommentMark(column), None)


def _tokens(entry: Any) -> list[Any]:
    """The comment tokens of an entry of the parser, which holds one, several, nested lists or none."""
    if entry is None:
        return []
    if isinstance(entry, list):
        return [token for item in entry for token in _tokens(item)]
    return [entry] if isinstance(entry, CommentToken) else []


def _split(token: Any, *, block: bool) -> tuple[str, list[str]]:
    """(comment on the line, lines below it). Behind a block scalar there is no rest of a line."""
    if not isinstance(token, CommentToken):
        return "", []
    lines = list(_lines([token]))
    if block:
        return "", lines
    return (lines[0], lines[1:]) if lines else ("", [])


def _lines(tokens: Iterable[CommentToken]) -> Iterator[str]:
    for token in tokens:
        text: str = token.value
        yield from (line.strip() for line in text.removesuffix("\n").split("\n"))
