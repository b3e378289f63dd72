# SPDX-License-Identifier: Apache-2.0
"""Whole sessions as a user sees them; each file in transcripts/ is one.

-- NAME --          a file of the session, up to the next line that starts with "--", "$" or "%"
% STATUS REASON MESSAGE   the server's next answer
$ COMMAND [< FILE] [> FILE]   a command
1| ...              a line of its stdout; a ciphertext of N plaintext bytes reads <N bytes>
2| ...              a line of its stderr
= CODE              its exit code, required
# ...               a comment, outside of files
"""

import re
import shlex
from pathlib import Path

import pytest

from strongroom.envelope import format as blob_format
from tests.cli.conftest import Cli
from tests.cli.fakeapi import Answer, FakeApi, status

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
_BLOB = re.compile(r"U1Ix[A-Za-z0-9+/]{60,}={0,2}")


def _lines(text: str, prefix: str) -> list[str]:
    def size(match: re.Match[str]) -> str:
        return f"<{blob_format.parse(match[0], where='transcript').plaintext_sizes[-1]} bytes>"

    return [f"{prefix}| {_BLOB.sub(size, line)}".rstrip() for line in text.split("\n")[: None if text else 0]][
        : -1 if text.endswith("\n") else None
    ]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(cli: Cli, api: FakeApi, tmp_path: Path, transcript: Path) -> None:
    file: Path | None = None
    expected: list[str] = []
    actual: list[str] = []
    for line in transcript.read_text().splitlines():
        if line.startswith("-- ") and line.endswith(" --"):
            file = tmp_path / line[3:-3]
            file.write_text("")
        elif line.startswith("% "):
            code, reason, message = line[2:].split(" ", 2)
            api.fail(Answer(int(code), status(int(code), reason, message)))
            file = None
        elif line.startswith("$ "):
            file = None
            assert expected == actual
            expected, actual = [line], [line, *_run(cli, tmp_path, line[2:])]
        elif file is not None:
            file.write_text(file.read_text() + line + "\n")
        elif line and not line.startswith("#"):
            expected.append(line)
    assert actual
    assert expected == actual


def _run(cli: Cli, directory: Path, command: str) -> list[str]:
    words = shlex.split(command)
    redirections: dict[str, Path] = {}
    while len(words) > 2 and words[-2] in ("<", ">"):
        redirections[words[-2]] = directory / words[-1]
        del words[-2:]
    assert words.pop(0) == "strongroom"
    stdin = redirections["<"].read_bytes() if "<" in redirections else b""
    result = cli(*words, stdin=stdin)
    stdout = result.text
    if ">" in redirections:
        redirections[">"].write_text(stdout)
        stdout = ""
    return [*_lines(stdout, "1"), *_lines(result.stderr, "2"), f"= {result.code}"]
