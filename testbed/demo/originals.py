# SPDX-License-Identifier: Apache-2.0
"""The plaintext Secrets that the usual tools made, and how to look for what they hold."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_SHORTEST = 16
"""Shorter values, and parts of them in base64, occur in any text by chance."""


@dataclass(frozen=True, slots=True)
class Original:
    """A Secret as it was before it was encrypted."""

    name: str
    type: str
    data: Mapping[str, bytes] = field(repr=False)

    def differences(self, secret: Mapping[str, Any]) -> list[str]:
        """What differs in a Secret of the API server, in words that hold no value; empty if nothing does."""
        found = []
        if secret.get("type") != self.type:
            found.append(f"{self.name}: type is {secret.get('type')}, not {self.type}")
        data = {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}
        if data.keys() != self.data.keys():
            found.append(f"{self.name}: data keys are {sorted(data)}, not {sorted(self.data)}")
        found += [
            f"{self.name}: {key} differs" for key in data.keys() & self.data.keys() if data[key] != self.data[key]
        ]
        return found

    def summary(self) -> str:
        """Type, data keys and sizes."""
        sizes = ", ".join(f"{key} {len(value)} bytes" for key, value in self.data.items())
        return f"{self.name}: {self.type}, {sizes}"


def read(directory: Path) -> list[Original]:
    """The Secrets of the manifests in a directory, sorted by file name."""
    return [read_file(path) for path in sorted(directory.glob("*.yaml"))]


def read_file(path: Path) -> Original:
    """The Secret of a manifest."""
    manifest = yaml.safe_load(path.read_text())
    data = {key: base64.b64decode(value) for key, value in (manifest.get("data") or {}).items()}
    return Original(manifest["metadata"]["name"], manifest.get("type", "Opaque"), data)


def needles(originals: list[Original]) -> dict[str, set[bytes]]:
    """What nobody else may hold: by `secret/data key`, the value, its telling parts, and the base64 of both."""
    return {
        f"{original.name}/{key}": {form for part in _parts(value) for form in _forms(part)}
        for original in originals
        for key, value in original.data.items()
        if len(value) >= _SHORTEST
    }


def leaks(wanted: Mapping[str, set[bytes]], text: bytes) -> list[str]:
    """The values of which something occurs in a text."""
    return [name for name, forms in wanted.items() if any(form in text for form in forms)]


def _parts(value: bytes) -> Iterator[bytes]:
    """The value, each of its lines, and each string of it if it is JSON: a log might quote a line, or a password."""
    yield value
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield from (
        line.strip().encode()
        for line in text.splitlines()
        if len(line.strip()) >= _SHORTEST and not line.startswith("-----")
    )
    try:
        tree = json.loads(text)
    except ValueError:
        return
    yield from (leaf.encode() for leaf in _strings(tree) if len(leaf) >= _SHORTEST)


def _strings(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _strings(value)


def _forms(part: bytes) -> Iterator[bytes]:
    """As it is, and as base64 at each of the three places it may have in a longer text that is encoded as a whole."""
    yield part
    yield base64.b64encode(part)
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + part)
        yield encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4]
