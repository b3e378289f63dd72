# SPDX-License-Identifier: Apache-2.0
"""Tables as kubectl prints them: upper-case header, columns three spaces apart."""

from collections.abc import Sequence

from strongroom.cli.printable import printable


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines without trailing spaces, each ending in a newline. Cells come from files and servers: they are escaped."""
    lines = [[printable(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
