# SPDX-License-Identifier: Apache-2.0
"""A configuration that cannot be used stops the start: exit code 2, and a message that names the field."""

import subprocess
import sys
from pathlib import Path

import pytest

GOOD = """\
namespace: strongroom
hsms:
  - {name: default, module: /usr/lib/softhsm/libsofthsm2.so, tokenLabel: t, pinFile: /nowhere/pin}
"""

TOKEN = "0123456789abcdef"
BAD = {
    "unknown-field": (GOOD + "relistSecs: 5\n", "relistSecs"),
    "unknown-field-of-a-section": (GOOD + "secrets: {watchDrift: true}\n", "`$.secrets`"),
    "wrong-type": (GOOD + "workers: many\n", "`$.workers`"),
    "out-of-range": (GOOD + "metricsPort: 65536\n", "`$.metricsPort`"),
    "limit-raised": (GOOD + "secrets: {maxPlaintextBytes: 4097}\n", "`$.secrets.maxPlaintextBytes`"),
    "field-missing": (GOOD.replace("namespace: strongroom\n", ""), "namespace"),
    "no-token": ("namespace: strongroom\nhsms: []\n", "`$.hsms`"),
    "relative-module": (GOOD.replace("/usr/lib/softhsm/", ""), "`$.hsms[0].module`"),
    "unknown-profile": (GOOD.replace("tokenLabel", "profile: lunar, tokenLabel"), "`$.hsms[0].profile`"),
    "bad-change": (
        GOOD.replace("tokenLabel", "profileChanges: {ivBytes: 13}, tokenLabel"),
        "`$.hsms[0].profileChanges`",
    ),
    "tracing-module": (GOOD.replace("libsofthsm2", "pkcs11-spy"), "`$.hsms[0].module`"),
    "tracing-variable": (
        GOOD.replace("tokenLabel", "environment: {PKCS11SPY: /x.so}, tokenLabel"),
        "`$.hsms[0].environment`",
    ),
    "bad-pattern": (GOOD + "secrets: {deniedMetadata: ['(']}\n", "`$.secrets.deniedMetadata[0]`"),
    "no-yaml": ("namespace: [", "YAML"),
}


def start(tmp_path: Path, config: Path, kubeconfig: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "strongroom.app", "--config", config],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig), "LANG": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check_refused(done: "subprocess.CompletedProcess[str]", *named: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for text in named:
        assert text in done.stderr


@pytest.mark.parametrize(("text", "field"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_stops_the_start_and_names_the_field(tmp_path: Path, text: str, field: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    check_refused(start(tmp_path, config, tmp_path / "kubeconfig"), str(config), field)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    check_refused(start(tmp_path, tmp_path / "absent.yaml", tmp_path / "kubeconfig"), "absent.yaml")


@pytest.mark.parametrize(
    "kubeconfig",
    [pytest.param(None, id="absent"), pytest.param("", id="empty"), pytest.param(f"token: [{TOKEN}", id="no-yaml")],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, kubeconfig: str | None) -> None:
    config, path = tmp_path / "config.yaml", tmp_path / "kubeconfig"
    config.write_text(GOOD)
    if kubeconfig is not None:
        path.write_text(kubeconfig)
    done = start(tmp_path, config, path)
    check_refused(done, "KUBECONFIG")
    assert TOKEN not in done.stderr
