# SPDX-License-Identifier: Apache-2.0
"""Texts from files and servers, made safe for a terminal."""


def printable(text: str) -> str:
    """One line without control characters: what is not printable (line ends, escape sequences, marks that turn the
    direction of writing) is shown as a backslash escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
