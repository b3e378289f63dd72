# SPDX-License-Identifier: Apache-2.0
"""Where the binaries come from."""

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
