# SPDX-License-Identifier: Apache-2.0
"""Texts ↔ documents ↔ Kubernetes objects. A document in which nothing was replaced keeps its bytes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from strongroom.cli import yamltext
from strongroom.cli.failure import Place, invalid
from strongroom.cli.sources import Source
from strongroom.cli.yamltext import Indentation

Format = Literal["yaml", "json"]

_SEPARATOR = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
"""`---` at the start of a line is a document marker everywhere, inside block scalars too (YAML 1.2, c-forbidden)."""

_BARE_SEPARATOR = re.compile(r"---[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)")
_LIST = "List"
_REFUSED_LISTS = {"SecretList", "EncryptedSecretList"}


@dataclass(slots=True)
class Document:
    """One document of a file. `number` counts those with content, from 1; 0 is one without."""

    source: Source
    number: int
    text: str
    """As it stands in the file, separator included."""
    tree: Any = None
    indentation: Indentation = field(default_factory=Indentation)
    replaced: bool = False
    from_json: bool = False

    def render(self, output: Format) -> str:
        """The text of this document, ending in a newline; empty for a document without content as JSON."""
        if output == "json":
            tree = self.tree if self.tree is not None or not self.number else _parse(self.text, self.place).tree
            return json.dumps(yamltext.to_json(tree), indent=2, ensure_ascii=False) + "\n" if self.number else ""
        if not self.replaced and not self.from_json:
            return self.text if self.text.endswith("\n") or not self.text else self.text + "\n"
        body = yamltext.dump(self.tree, self.indentation)
        head = "" if self.from_json else _head(self.text)
        return (head + body).replace("\n", "\r\n") if "\r\n" in self.text else head + body

    @property
    def place(self) -> Place:
        """For errors."""
        return Place(self.source.name, self.number)


@dataclass(slots=True)
class Object:
    """One Kubernetes object: a document, or an item of a List."""

    document: Document
    node: CommentedMap
    place: Place
    parent: CommentedSeq | None = None
    index: int = 0

    def is_a(self, api_version: str, kind: str) -> bool:
        """Whether it is of this version and kind."""
        return bool(self.node.get("apiVersion") == api_version and self.node.get("kind") == kind)

    @property
    def column(self) -> int:
        """Where its keys stand."""
        return int(self.node.lc.col) if self.parent is not None and not self.document.from_json else 0

    def replace(self, node: CommentedMap) -> None:
        """Put another object in its place."""
        if self.parent is None:
            self.document.tree = node
        else:
            self.parent[self.index] = node
        self.node = node
        self.document.replaced = True


def parse(source: Source, *, kind: str) -> list[Document]:
    """Split a file into documents and parse those that can hold an object of `kind`. Raises CommandError."""
    as_json = _parse_json(source)
    if as_json is not None:
        return as_json
    documents: list[Document] = []
    number = 0
    for text in _split(source.text):
        document = Document(source, 0, text)
        if _has_content(_body(text)):
            number += 1
            document.number = number
            # Without an escape, a text that does not hold the word holds no such kind: skip the slow parser.
            if kind in text or "\\" in text:
                parsed = _parse(text, document.place)
                document.tree, document.indentation = parsed.tree, parsed.indentation
        documents.append(document)
    return documents


def objects(documents: Sequence[Document]) -> Iterator[Object]:
    """Every object of the parsed documents, those inside Lists too."""
    for document in documents:
        if isinstance(document.tree, CommentedMap):
            yield from _objects(Object(document, document.tree, document.place))


def render(documents: Sequence[Document], output: Format) -> str:
    """One stream of documents, which may come from several files. Raises CommandError."""
    text = ""
    for document in documents:
        rendered = document.render(output)
        if output == "yaml" and text and rendered and not rendered.startswith("---"):
            _check_joinable(document)
            text += "---\n"
        text += rendered
    return text


def render_file(documents: Sequence[Document]) -> str:
    """The new content of the one file these documents come from, in its own format."""
    if documents[0].from_json:
        return "".join(document.render("json") for document in documents)
    return "".join(document.render("yaml") for document in documents)


def subject(node: Mapping[str, Any]) -> str:
    """`Kind namespace/name` for errors and tables, as far as it can be told."""
    metadata = node.get("metadata")
    found = metadata if isinstance(metadata, Mapping) else {}
    name = found.get("name") or "(no name)"
    namespace = found.get("namespace")
    return f"{node.get('kind')} {namespace}/{name}" if namespace else f"{node.get('kind')} {name}"


def _objects(found: Object) -> Iterator[Object]:
    node = found.node
    if node.get("kind") in _REFUSED_LISTS:
        raise invalid(f"kind {node['kind']} is not supported", hint="Use 'kind: List'", place=found.place)
    if node.get("kind") != _LIST:
        found.place = Place(found.place.file, found.place.document, found.place.item, subject(node))
        yield found
        return
    items = node.get("items")
    if not isinstance(items, CommentedSeq):
        raise invalid("a List without items", hint="Add 'items:' with a sequence of objects", place=found.place)
    for index, item in enumerate(items):
        place = Place(found.place.file, found.place.document, index + 1)
        if not isinstance(item, CommentedMap):
            raise invalid("an item of a List is not an object", hint="Correct or remove it", place=place)
        yield from _objects(Object(found.document, item, place, items, index))


def _split(text: str) -> list[str]:
    starts = [match.start() for match in _SEPARATOR.finditer(text)]
    edges = [0, *(start for start in starts if start), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def _has_content(body: str) -> bool:
    """Whether there is more than comments, directives, document ends and blank lines."""
    return any(
        line.strip() and line.strip() != "..." and not line.lstrip().startswith("#") and not line.startswith("%")
        for line in body.splitlines()
    )


def _check_joinable(document: Document) -> None:
    """Behind another document a directive would need a `...` before it, which not every reader takes everywhere."""
    if not document.number and any(line.startswith("%") for line in document.text.splitlines()):
        raise invalid(
            "the file begins with a YAML directive and cannot follow another file",
            hint="Remove the line that begins with '%' (Kubernetes needs none), or name this file alone or first",
            place=document.place,
        )


def _head(text: str) -> str:
    """The separator line, if the document has one."""
    match = _BARE_SEPARATOR.match(text)
    if match:
        return match[0].replace("\r\n", "\n")
    return "---\n" if text.startswith("---") else ""


def _body(text: str) -> str:
    match = _BARE_SEPARATOR.match(text)
    return text[match.end() :] if match else text.removeprefix("---")


@dataclass(frozen=True, slots=True)
class _Parsed:
    tree: Any
    indentation: Indentation


def _parse(text: str, place: Place) -> _Parsed:
    tree = yamltext.load(_body(text), place)
    return _Parsed(tree, Indentation.of(tree))


def _parse_json(source: Source) -> list[Document] | None:
    """The documents of a file of JSON objects; None if it is not JSON."""
    text = source.text.strip()
    if not text.startswith("{"):
        return None
    decoder = json.JSONDecoder(object_pairs_hook=_without_duplicates)
    documents: list[Document] = []
    position = 0
    while position < len(text):
        try:
            value, end = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError):
            return None
        except _DuplicateKey:
            raise invalid("duplicate key in an object", hint="Remove one", place=Place(source.name)) from None
        tree = yamltext.from_json(value)
        documents.append(Document(source, len(documents) + 1, text[position:end], tree, from_json=True))
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return documents


class _DuplicateKey(Exception):
    pass


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _DuplicateKey
    return dict(pairs)
