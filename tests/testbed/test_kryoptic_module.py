# SPDX-License-Identifier: Apache-2.0
"""Where kryoptic's module comes from."""

from pathlib import Path

import pytest

from testbed import TestBedError, kryoptic
from testbed.building import cache_directory

_FAKE_CARGO = """#!/bin/sh
if [ "$1" = --version ]; then echo "cargo {version} (0000000 2026-01-01)"; exit; fi
echo "$@" >> {log}
[ ! -e {broken} ] || {{ echo 'error: does not compile' >&2; exit 1; }}
mkdir -p "$CARGO_TARGET_DIR/release" && touch "$CARGO_TARGET_DIR/release/libkryoptic_pkcs11.so"
"""


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the compiler, since the real one takes a minute, and an empty cache. Gives its log."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    write_cargo(tmp_path, "1.95.0")
    return tmp_path / "cargo.log"


def write_cargo(directory: Path, version: str) -> None:
    program = directory / "bin" / "cargo"
    program.parent.mkdir(exist_ok=True)
    program.write_text(_FAKE_CARGO.format(version=version, log=directory / "cargo.log", broken=directory / "broken"))
    program.chmod(0o700)


def test_it_is_built_once_from_what_is_locked_and_kept_by_version(cargo: Path) -> None:
    module = kryoptic.ensure_module()
    assert kryoptic.ensure_module() == module
    assert cargo.read_text() == "build --release --locked\n"
    assert module.exists()
    assert module.is_relative_to(cache_directory())
    assert module.parent.name.startswith("kryoptic-1.")


def test_without_rust_the_message_says_what_to_install(
    cargo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(TestBedError, match=r"install Rust 1\.89 or newer, with `cargo` on PATH"):
        kryoptic.ensure_module()


def test_old_rust_is_named(cargo: Path, tmp_path: Path) -> None:
    write_cargo(tmp_path, "1.63.0")
    with pytest.raises(TestBedError, match=r"needs Rust 1.89 or newer; .*cargo is cargo 1.63.0"):
        kryoptic.ensure_module()


def test_failed_build_shows_the_compilers_words_and_leaves_nothing(cargo: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(TestBedError, match=r"build kryoptic \S+ failed: .*\nerror: does not compile"):
        kryoptic.ensure_module()
    assert not list(cache_directory().rglob("*.so"))
    (tmp_path / "broken").unlink()
    assert kryoptic.ensure_module().exists()


def test_no_crate_comes_from_anywhere_but_the_registry() -> None:
    lock = Path("testbed/rust/kryoptic/Cargo.lock").read_text()
    sources = {line for line in lock.splitlines() if line.startswith("source")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}
