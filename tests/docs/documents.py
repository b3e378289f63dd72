# SPDX-License-Identifier: Apache-2.0
"""The documents of the repository, and what is in them."""

import re
from collections.abc import Iterator
from pathlib import Path

from testbed import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("examples/*.md")])

_FENCE = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def read(path: str) -> str:
    return (REPOSITORY / path).read_text()


def blocks(text: str, language: str) -> Iterator[str]:
    """Fenced blocks of a language."""
    for found, block in _FENCE.findall(text):
        if found == language:
            yield block


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"there is no section {heading!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of every table row below a header, without the ruling."""
    found = []
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        if line.startswith(("| ", "|---")):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found.append((before, line, cells))
    headers = {before for before, line, _ in found if line.startswith("|---")}
    return [cells for _, line, cells in found if not line.startswith("|---") and line not in headers]


def commands(block: str) -> list[str]:
    """Commands of a shell block, lines that end in a backslash joined to the next; comments stay where they are."""
    return [line for line in re.sub(r"\\\n\s*", "", block).splitlines() if line and not line.startswith("#")]
