# SPDX-License-Identifier: Apache-2.0
"""Files of a token that others may read or change are found, with the command that closes them."""

from pathlib import Path

import pytest

from strongroom.hsm.tokenfiles import OpenFilesError, refuse_open_files
from testbed.softhsm import SoftHsmToken


def _softhsm(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An open volume with a token's directory in it, as SoftHSM makes it."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "tokens"
    token = directory / "8b7a"
    token.mkdir(parents=True)
    for path in (directory, token):
        path.chmod(0o700)
    (token / "token.object").touch(mode=0o600)
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"# SoftHSM\n  directories.tokendir = {directory}  \nlog.level = ERROR\n")
    return directory, {"SOFTHSM2_CONF": str(configuration)}


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o770, 0o2770])
def test_directory_for_owner_and_group_is_accepted(tmp_path: Path, mode: int) -> None:
    directory, environment = _softhsm(tmp_path)
    directory.chmod(mode)
    (directory / "8b7a" / "token.object").chmod(0o644)  # out of reach
    refuse_open_files(environment)


@pytest.mark.parametrize("mode", [0o701, 0o702, 0o704, 0o755, 0o777, 0o1777])
def test_directory_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, mode: int) -> None:
    directory, environment = _softhsm(tmp_path)
    directory.chmod(mode)
    with pytest.raises(OpenFilesError) as caught:
        refuse_open_files(environment)
    assert caught.value.message == f"the token's directory {directory} is open to everyone (mode {mode:04o})"
    assert caught.value.hint == f"Run 'chmod -R o= {directory}'"


def test_open_file_in_an_open_directory_below_is_refused(tmp_path: Path) -> None:
    directory, environment = _softhsm(tmp_path)
    below = directory / "8b7a"
    below.chmod(0o755)
    (below / "token.object").chmod(0o604)
    with pytest.raises(OpenFilesError, match=r"the token's file .*token\.object is open"):
        refuse_open_files(environment)


def test_link_to_an_open_directory_is_followed(tmp_path: Path) -> None:
    directory, environment = _softhsm(tmp_path)
    real = tmp_path / "real"
    directory.rename(real)
    real.chmod(0o755)
    directory.symlink_to(real)
    with pytest.raises(OpenFilesError):
        refuse_open_files(environment)


@pytest.mark.parametrize(
    ("directory_mode", "file_mode", "accepted"), [(0o700, 0o644, True), (0o755, 0o600, True), (0o755, 0o644, False)]
)
@pytest.mark.parametrize("named", ["in TOML", "itself"])
def test_database_of_kryoptic_is_checked(
    tmp_path: Path, directory_mode: int, file_mode: int, accepted: bool, named: str
) -> None:
    directory = tmp_path / "tokens"
    directory.mkdir()
    database = directory / "token.sql"
    database.write_bytes(b"SQLite format 3\0")
    database.chmod(file_mode)
    directory.chmod(directory_mode)
    configuration = tmp_path / "kryoptic.conf"
    configuration.write_text(f'[[slots]]\nslot = 1\ndbtype = "sqlite"\ndbargs = "{database}"\n')
    environment = {"KRYOPTIC_CONF": str(configuration if named == "in TOML" else database)}
    if accepted:
        refuse_open_files(environment)
        return
    with pytest.raises(OpenFilesError, match=r"token\.sql is open to everyone"):
        refuse_open_files(environment)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"directories.tokendir =\n",
        b"directories.tokendir = /nowhere\n",
        b"\xff\xfe",
        b"slots = 5\n",
        b"[[slots]]\n",
    ],
)
@pytest.mark.parametrize("variable", ["SOFTHSM2_CONF", "KRYOPTIC_CONF"])
def test_what_names_no_files_is_left_to_the_library(tmp_path: Path, variable: str, content: bytes | None) -> None:
    configuration = tmp_path / "configuration"
    if content is not None:
        configuration.write_bytes(content)
        configuration.chmod(0o600)
    refuse_open_files({variable: str(configuration)})
    refuse_open_files({})


@pytest.mark.hsm
def test_token_as_softhsm_makes_it_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    token = SoftHsmToken(tmp_path / "token")
    token.directory.chmod(0o755)
    refuse_open_files(token.environment)
