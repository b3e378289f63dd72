# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import config
from strongroom.config import ConfigurationError

SMALLEST = """\
namespace: strongroom
hsms:
- name: default
  module: /usr/lib/softhsm/libsofthsm2.so
  tokenLabel: strongroom
  pinFile: /run/secrets/pin
"""


def load(tmp_path: Path, text: str | bytes) -> config.Config:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(path)


def test_the_smallest_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path, SMALLEST)
    assert (loaded.namespace, loaded.hsms[0].token_label) == ("strongroom", "strongroom")
    assert loaded.audit.strict is True
    assert loaded.secrets.drift_watch is True
    assert loaded.secrets.max_plaintext_bytes == 4096
    assert loaded.hsms[0].module_sha256 == ""


def with_hsm(line: str) -> str:
    return SMALLEST + f"  {line}\n"


def without(field: str) -> str:
    return "".join(line for line in SMALLEST.splitlines(keepends=True) if field not in line)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        pytest.param(without("namespace"), "`namespace`", id="namespace-missing"),
        pytest.param(without("pinFile"), "is needed", id="pin-file-missing"),
        pytest.param(with_hsm("profile: lunar"), "there is no profile 'lunar', but aws-cloudhsm", id="profile-unknown"),
        pytest.param(with_hsm("profile: ../generic"), "`$.hsms[0].profile`", id="profile-a-path"),
        pytest.param(
            with_hsm("profileChanges: {ivBytes: 13}"), "ivBytes is 12 or 16 - at `$.hsms[0].profileChanges`", id="iv"
        ),
        pytest.param(
            with_hsm("profileChanges: {login: maybe}"), "`$.login` - at `$.hsms[0].profileChanges`", id="change-of-type"
        ),
        pytest.param(
            with_hsm("profileChanges: {iv_bytes: 12}"),
            "`iv_bytes` - at `$.hsms[0].profileChanges`",
            id="change-unknown",
        ),
        pytest.param(with_hsm("profileChanges: [login]"), "`$.hsms[0].profileChanges`", id="changes-a-list"),
        pytest.param(
            SMALLEST.replace("libsofthsm2.so", "pkcs11-spy.so"), "pkcs11-spy writes down every call", id="spy-module"
        ),
        pytest.param(
            with_hsm("environment: {PKCS11SPY: /usr/lib/softhsm/libsofthsm2.so}"),
            "remove it from environment - at `$.hsms[0].environment`",
            id="spy-variable",
        ),
        pytest.param("namespace: a\nhsms: []\n", "`$.hsms`", id="no-hsm"),
        pytest.param(SMALLEST + "namspace: b\n", "`namspace`", id="unknown-field"),
        pytest.param(with_hsm("pin: '1234'"), "`pin` - at `$.hsms[0]`", id="unknown-field-of-an-hsm"),
        pytest.param(with_hsm("sessions: '2'"), "`$.hsms[0].sessions`", id="text-for-a-number"),
        pytest.param(with_hsm("sessions: 2.5"), "`$.hsms[0].sessions`", id="fraction-for-a-count"),
        pytest.param(with_hsm("sessions: 0"), "`$.hsms[0].sessions`", id="no-sessions"),
        pytest.param(with_hsm("sessions: 65"), "`$.hsms[0].sessions`", id="too-many-sessions"),
        pytest.param(with_hsm("operationTimeoutSeconds: 0"), "operationTimeoutSeconds`", id="no-timeout"),
        pytest.param(with_hsm("moduleSha256: ABC"), "`$.hsms[0].moduleSha256`", id="digest-not-hexadecimal"),
        pytest.param(with_hsm("environment: {A: 1}"), "`$.hsms[0].environment[...]`", id="environment-not-text"),
        pytest.param(SMALLEST.replace("/usr/lib/softhsm/", ""), "`$.hsms[0].module`", id="module-not-an-absolute-path"),
        pytest.param(SMALLEST.replace("/run/secrets/pin", "pin"), "`$.hsms[0].pinFile`", id="pin-file-relative"),
        pytest.param(SMALLEST.replace("tokenLabel", "token_label"), "`$.hsms[0]`", id="field-in-another-case"),
        pytest.param(
            SMALLEST.replace("tokenLabel: strongroom", "tokenLabel: ''"), "`$.hsms[0].tokenLabel`", id="label-empty"
        ),
        pytest.param(
            SMALLEST.replace("tokenLabel: strongroom", f"tokenLabel: {'x' * 33}"),
            "`$.hsms[0].tokenLabel`",
            id="label-too-long",
        ),
        pytest.param(SMALLEST.replace("name: default", "name: My_HSM"), "`$.hsms[0].name`", id="hsm-name-not-dns"),
        pytest.param(
            SMALLEST + SMALLEST.partition("hsms:\n")[2], "two HSMs are named 'default'", id="two-hsms-of-one-name"
        ),
        pytest.param(
            SMALLEST + SMALLEST.partition("hsms:\n")[2].replace("default", "other") + "workers: 1\n",
            "`$.workers`",
            id="fewer-workers-than-hsms",
        ),
        pytest.param(SMALLEST + "secrets: {maxPlaintextBytes: 4097}\n", "`$.secrets.maxPlaintextBytes`", id="raised"),
        pytest.param(SMALLEST + "secrets: {maxPlaintextBytes: -1}\n", "`$.secrets.maxPlaintextBytes`", id="negative"),
        pytest.param(
            SMALLEST + "secrets: {deniedMetadata: ['ok', '(']}\n", "`$.secrets.deniedMetadata[1]`", id="bad-pattern"
        ),
        pytest.param(SMALLEST + "audit: {strict: 'no'}\n", "`$.audit.strict`", id="text-for-a-boolean"),
        pytest.param(SMALLEST + "audit: true\n", "`$.audit`", id="boolean-for-a-section"),
        pytest.param(SMALLEST + "api: {port: 65536}\n", "`$.api.port`", id="port-too-large"),
        pytest.param(SMALLEST + "workers: 0\n", "`$.workers`", id="no-workers"),
        pytest.param(SMALLEST + "logLevel: debug\n", "`$.logLevel`", id="level-unknown"),
        pytest.param(SMALLEST + "workers: many\n", "`$.workers`", id="not-a-number"),
        pytest.param("- namespace\n", "Expected `object`", id="a-list"),
        pytest.param("", "Expected `object`", id="empty"),
    ],
)
def test_a_bad_file_is_refused_by_the_field_at_fault(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert names in str(caught.value)
    assert str(tmp_path / "config.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"\xff\xfe\x00", id="not-utf-8"),
        pytest.param(b"a: [", id="cut-off"),
        pytest.param(b"a: 1\n---\nb: 2\n", id="two-documents"),
        pytest.param(b"a: &a [*a]\n", id="contains-itself"),
        pytest.param(b"a: !!python/object/apply:os.getcwd []\n", id="python-object"),
        pytest.param(b"\0", id="nul"),
        pytest.param(b"{? [a, b] : c}\n", id="key-is-a-list"),
        pytest.param(b"1: 2\n", id="key-is-a-number"),
    ],
)
def test_what_is_no_configuration_at_all_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ConfigurationError):
        load(tmp_path, text)


@given(text=st.binary(max_size=200))
def test_any_file_is_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError):
        config.load(path)


def test_pin_file_is_not_needed_without_a_login(tmp_path: Path) -> None:
    [hsm] = load(tmp_path, without("pinFile") + "  profileChanges: {login: false}\n").hsms
    assert (hsm.pin_file, hsm.resolved_profile.login) == ("", False)


def test_configured_number_of_sessions_is_wanted_rather_than_the_profiles(tmp_path: Path) -> None:
    [profiles_own] = load(tmp_path, with_hsm("profileChanges: {sessions: 7}")).hsms
    assert profiles_own.wanted_sessions == 7
    [configured] = load(tmp_path, with_hsm("profileChanges: {sessions: 7}\n  sessions: 9")).hsms
    assert configured.wanted_sessions == 9


def test_tracing_in_the_operators_own_environment_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PKCS11SPY_OUTPUT", "/tmp/spy.log")
    with pytest.raises(ConfigurationError, match=r"PKCS11SPY_OUTPUT has OpenSC's pkcs11-spy write down calls.*own"):
        load(tmp_path, SMALLEST)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "a-directory"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "config.yaml"
    make(path)
    with pytest.raises(ConfigurationError, match=r"config\.yaml: cannot be read"):
        config.load(path)
