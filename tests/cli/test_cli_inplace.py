# SPDX-License-Identifier: Apache-2.0
"""`encrypt --in-place`: each file as a whole, and none before all can be."""

import json
import os
from pathlib import Path

import pytest
import yaml

from strongroom.cli import output
from strongroom.cli.output import Replacement
from tests.cli.conftest import Cli
from tests.cli.fakeapi import Answer, FakeApi, status

SECRET = """\
# about the file
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: shop}
stringData:
  password: canary-7f3a # keep
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_replaced_with_its_mode_and_comments_kept(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "db.yaml"
    file.write_text(SECRET)
    file.chmod(0o640)
    result = cli("encrypt", "--key", "prod", "-i", "-f", "db.yaml")
    assert (result.code, result.stdout) == (0, b""), result.stderr
    text = file.read_text()
    assert text.startswith("# about the file\napiVersion: kms.strongroom.dev/v1alpha1\n")
    assert "# keep" in text
    assert "canary" not in text
    assert file.stat().st_mode & 0o7777 == 0o640
    assert names(tmp_path) == ["db.yaml"]


def test_json_files_stay_json(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "db.json"
    file.write_text(json.dumps(yaml.safe_load(SECRET)))
    assert cli("encrypt", "--key", "prod", "-i", "-f", ".").code == 0
    assert json.loads(file.read_text())["kind"] == "EncryptedSecret"


def test_files_without_a_secret_are_not_even_touched(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "db.yaml").write_text(SECRET)
    other = tmp_path / "other.yaml"
    other.write_text("kind:  ConfigMap")
    before = other.stat()
    assert cli("encrypt", "--key", "prod", "-i", "-f", str(tmp_path)).code == 0
    assert (other.stat().st_ino, other.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "trouble",
    [
        "second-refused",
        "bad-second-file",
        "blob-of-another-size",
        "other-data-keys",
        "no-blob",
        "disk-full",
        "no-answer",
    ],
)
def test_after_a_failure_every_file_is_as_it_was(
    cli: Cli, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(SECRET)
    second.write_text(SECRET)
    match trouble:
        case "second-refused":
            # The first answer is genuine: it is queued as the server would have given it.
            genuine = cli("encrypt", "--key", "prod", "-f", "1.yaml", "-o", "json")
            blobs = json.loads(genuine.text)["spec"]["encryptedData"]
            good = Answer(201, {"status": {"encryptedData": blobs}})
            api.fail(good, Answer(409, status(409, "KeyDisabled", "key prod is disabled")))
        case "bad-second-file":
            second.write_text(SECRET + "  : : :\n")
        case "blob-of-another-size":
            api.fail(
                Answer(201, {"status": {"encryptedData": {"password": "U1Ix" + "AV8MnF4KUU9snWotWn4fDBEA" + "A" * 44}}})
            )
        case "other-data-keys":
            api.tamper = lambda body: body["status"]["encryptedData"].update(more="U1Ix")
        case "no-blob":
            api.tamper = lambda body: body["status"]["encryptedData"].update(password="canary-7f3a")
        case "disk-full":
            real = output._beside

            def full(path: Path, text: str) -> Path:
                if path.name == "2.yaml":
                    raise OSError(28, "No space left on device", str(path))
                return real(path, text)

            monkeypatch.setattr(output, "_beside", full)
        case _:
            api.fail(Answer(201, "not json"))
    before = {path: path.read_bytes() for path in (first, second)}
    result = cli("encrypt", "--key", "prod", "-i", "-f", str(tmp_path))
    assert (result.code, result.stdout) == (1, b"")
    assert "error: " in result.stderr
    assert "canary" not in result.stderr
    assert {path: path.read_bytes() for path in (first, second)} == before
    assert names(tmp_path) == ["1.yaml", "2.yaml"]


def test_a_temporary_file_that_cannot_be_finished_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("old")

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        output.replace_files([Replacement(file, b"old", "new")])
    assert file.read_text() == "old"
    assert names(tmp_path) == ["a.yaml"]


def test_a_file_that_was_edited_meanwhile_is_not_overwritten(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(SECRET)
    second.write_text(SECRET)
    edited = SECRET.replace("canary-7f3a", "canary-new")
    api.tamper = lambda _: second.write_text(edited)
    result = cli("encrypt", "--key", "prod", "-i", "-f", ".")
    assert (result.code, result.stdout) == (1, b"")
    assert "error: the file was changed meanwhile; no file is replaced (2.yaml)" in result.stderr
    assert (first.read_text(), second.read_text()) == (SECRET, edited)
    assert names(tmp_path) == ["1.yaml", "2.yaml"]


def test_a_replacement_that_fails_midway_says_what_is_replaced_and_goes_on_when_repeated(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{n}.yaml" for n in (1, 2, 3)]
    for file in files:
        file.write_text(SECRET)
    real = os.replace

    def refuse_second(source: Path, target: Path) -> None:
        if target.name == "2.yaml":
            raise PermissionError(1, "Operation not permitted", str(source))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse_second)
        result = cli("encrypt", "--key", "prod", "-i", "-f", ".")
    assert (result.code, result.stdout) == (1, b"")
    assert (
        "error: Operation not permitted: 1 of 3 files are replaced, this one and those after it are as they were "
        "(2.yaml)"
    ) in result.stderr
    assert ["canary" in file.read_text() for file in files] == [False, True, True]
    assert names(tmp_path) == ["1.yaml", "2.yaml", "3.yaml"]

    assert cli("encrypt", "--key", "prod", "-i", "-f", ".").code == 0
    assert ["canary" in file.read_text() for file in files] == [False, False, False]


def test_in_place_says_once_that_git_remembers(cli: Cli, tmp_path: Path) -> None:
    for name in ("1.yaml", "2.yaml"):
        (tmp_path / name).write_text(SECRET)
    result = cli("encrypt", "--key", "prod", "-i", "-f", ".")
    assert result.stderr.count("Git's history") == 1
    assert "Git" not in cli("encrypt", "--key", "prod", "-i", "-f", ".").stderr, "nothing was replaced"
    assert "Git" not in cli("encrypt", "--key", "prod", stdin=SECRET).stderr


def test_a_symlink_is_refused_before_anything_is_sent(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text(SECRET)
    (tmp_path / "link.yaml").symlink_to(target)
    result = cli("encrypt", "--key", "prod", "-i", "-f", "link.yaml")
    assert (result.code, api.requests) == (1, [])
    assert "only a regular file is replaced in place (link.yaml)" in result.stderr
    assert target.read_text() == SECRET
    assert (tmp_path / "link.yaml").is_symlink()


@pytest.mark.parametrize(
    "arguments", [[], ["-f", "-"], ["-f", "db.yaml", "-f", "-"], ["-f", "db.yaml", "-o", "yaml"], ["--raw"]]
)
def test_in_place_needs_files_and_nothing_that_contradicts_it(cli: Cli, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "db.yaml").write_text(SECRET)
    result = cli("encrypt", "--key", "prod", "--in-place", *arguments, stdin=SECRET)
    assert (result.code, result.stdout) == (2, b"")
    assert (tmp_path / "db.yaml").read_text() == SECRET
