# SPDX-License-Identifier: Apache-2.0
"""What documents point at exists: files, headings, make targets, verbs and options of the command line."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from strongroom.cli.main import strongroom
from testbed import REPOSITORY
from tests.docs.documents import DOCUMENTS, blocks, commands, name, read

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
_MENTIONED = re.compile(r"docs/[a-zA-Z0-9_/.-]+\.md")
_SOURCES = ("operator", "charts", "testbed", "crds", "examples", "pyproject.toml", "Makefile")
_PLACEHOLDER = re.compile(r"\$\(.*?\)|\"\$\(.*?\)\"")


def _anchors(text: str) -> set[str]:
    """GitHub's anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _dead_links(path: Path, text: str) -> Iterator[str]:
    for target in _LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        pointed_at = (path.parent / file).resolve() if file else path
        found = pointed_at.is_relative_to(REPOSITORY) and pointed_at.exists()
        if not found or (anchor and anchor not in _anchors(pointed_at.read_text())):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert list(_dead_links(path, path.read_text())) == []


@pytest.mark.parametrize("target", ["docs/nothing.md", "#no-such-heading", "../outside.md", "README.md#nothing"])
def test_search_finds_a_dead_link(target: str) -> None:
    assert list(_dead_links(REPOSITORY / "README.md", f"[text]({target})")) == [target]


def test_documents_that_code_names_exist() -> None:
    files = [path for top in _SOURCES for path in ([REPOSITORY / top, *(REPOSITORY / top).rglob("*")])]
    named = {
        found
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
        for found in _MENTIONED.findall(path.read_text(errors="replace"))
    }
    assert "docs/permissions.md" in named
    assert sorted(found for found in named if not (REPOSITORY / found).exists()) == []


def test_every_document_is_reachable_from_the_readme() -> None:
    linked = {(REPOSITORY / target.partition("#")[0]).resolve() for target in _LINK.findall(read("README.md"))}
    reachable = linked | {file for folder in linked if folder.is_dir() for file in folder.iterdir()}
    assert [name(path) for path in DOCUMENTS if path not in reachable and path.name != "README.md"] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    text = path.read_text()
    code = [*re.findall(r"^ {4}.*$", text, re.MULTILINE), *re.findall(r"(?<!`)`[^`\n]+`", text), *blocks(text, "sh")]
    assert sorted(set(_TARGET.findall("\n".join(code))) - targets) == []


def _invocations(text: str) -> Iterator[list[str]]:
    """Command lines of `strongroom` in shell blocks, indented ones included, up to a pipe or redirection."""
    indented = re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE)
    for block in [*blocks(text, "sh"), *("\n".join(re.findall(r"^ {4}(.*)$", b, re.MULTILINE)) for b in indented)]:
        for command in commands(block):
            for part in re.split(r"\|\|?|&&|;", _PLACEHOLDER.sub("VALUE", command)):
                words = shlex.split(part, comments=True) if "strongroom " in part else []
                if words[:2] == ["kubectl", "strongroom"]:
                    words = words[1:]
                if words and words[0] == "strongroom":
                    stop = next((n for n, word in enumerate(words) if word in (">", "<", "2>", ">>")), len(words))
                    yield words[1:stop]


def _parse(arguments: list[str]) -> None:
    """Parse a command line as the real one does, without running it. Raises click.UsageError."""
    command: click.Command = strongroom
    context = command.make_context("strongroom", list(arguments), resilient_parsing=False)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        _, found, arguments = command.resolve_command(context, rest)
        assert found is not None
        command = found
        context = command.make_context(command.name, arguments, parent=context)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_command_lines_parse(path: Path) -> None:
    for arguments in _invocations(path.read_text()):
        _parse(arguments)


def test_readme_holds_command_lines() -> None:
    assert len(list(_invocations(read("README.md")))) >= 6


@pytest.mark.parametrize("arguments", [["encript"], ["encrypt", "--keys", "prod"], ["keys", "shows", "prod"]])
def test_wrong_command_lines_do_not_parse(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        _parse(arguments)


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) < 150


def test_help_of_make_lists_what_the_readme_names() -> None:
    told = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "bench"):
        assert f"make {target}" in told
