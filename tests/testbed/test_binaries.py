# SPDX-License-Identifier: Apache-2.0
"""Where the binaries come from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import TestBedError, binaries

_NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory that holds every binary already, so that nothing is built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    cache = binaries.cache_directory()
    for module in (binaries._ETCD, binaries._KUBERNETES, binaries._HELM):
        directory = cache / f"{module.name}-{module.version}"
        directory.mkdir()
        for name in module.commands:
            (directory / name).touch()
    return cache


def test_versions_are_those_of_the_pinned_modules() -> None:
    assert binaries.kubernetes_version().startswith("v1.")
    assert f"k8s.io/kubernetes {binaries.kubernetes_version()}" in Path("testbed/go/kubernetes/go.mod").read_text()


def test_everything_comes_from_the_cache_by_version(cache: Path) -> None:
    found = binaries.ensure()
    assert {getattr(found, name.replace("-", "_")).name for name in _NAMES} == set(_NAMES)
    assert found.kubectl == cache / f"kubernetes-{binaries.kubernetes_version()}" / "kubectl"


def test_envtest_assets_are_taken_where_they_are_set(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "envtest"
    assets.mkdir()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = binaries.ensure()
    assert (found.etcd, found.kube_apiserver, found.kubectl) == (
        assets / "etcd",
        assets / "kube-apiserver",
        assets / "kubectl",
    )
    assert found.kube_controller_manager.is_relative_to(cache)


def test_incomplete_envtest_assets_are_an_error_that_names_the_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(TestBedError, match=f"{tmp_path}/etcd does not exist"):
        binaries.ensure()


_FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.0; exit; fi
echo "$@" >> {log}
sleep 0.3
[ ! -e {broken} ] || {{ echo 'main.go:1: does not compile' >&2; exit 1; }}
while [ "$1" != -o ]; do shift; done
out=$2
shift 2
for package; do touch "$out${{package##*/}}"; done
[ ! -e "${{out}}v3" ] || mv "${{out}}v3" "${{out}}server"
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the compiler, since the real one takes minutes, and an empty cache. Gives its log."""
    program, log = tmp_path / "bin" / "go", tmp_path / "go.log"
    program.parent.mkdir()
    program.write_text(_FAKE_GO.format(log=log, broken=tmp_path / "broken"))
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return log


def test_two_runs_at_once_build_once(go: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(binaries.ensure) for _ in range(2)])
    assert first == second
    assert all(path.exists() for path in (first.etcd, first.kube_apiserver, first.kubectl, first.helm))
    assert len(go.read_text().splitlines()) == 3, "one for each of etcd, kubernetes and helm"
    said = capfd.readouterr().err
    assert "another process is building it; waiting" in said
    assert f"build helm {binaries._HELM.version}: done in 0 s" in said


def test_failed_build_shows_the_compilers_words_and_leaves_nothing(go: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(TestBedError, match=r"build etcd v\S+ failed: go build .*\nmain.go:1: does not compile"):
        binaries.ensure()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    (tmp_path / "broken").unlink()
    assert binaries.ensure().etcd.exists()
