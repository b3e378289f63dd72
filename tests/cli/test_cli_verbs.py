# SPDX-License-Identifier: Apache-2.0
"""The smaller verbs, options shared by all, and the process around them."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from strongroom import __version__
from strongroom.cli import main as main_module
from tests.cli.conftest import Cli
from tests.cli.fakeapi import KEY_ID, Answer, FakeApi, status

VECTORS = {
    vector["name"]: vector
    for vector in json.loads(Path(__file__).parents[1].joinpath("vectors", "blob-v1.json").read_bytes())["good"]
}
SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData: {a: '1', b: ''}\n"
SOURCE_ROOT = Path(main_module.__file__).parents[2]


def process(code: str, *arguments: str, **more: object) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env=environment, **more)  # type: ignore[call-overload,no-any-return]


RUN = "from strongroom.cli.main import main; main()"


def test_inspect_lists_every_value_offline(cli: Cli, api: FakeApi) -> None:
    encrypted = cli("encrypt", "--key", "prod", stdin=SECRET)
    api.requests.clear()
    result = cli("inspect", "-o", "json", stdin=encrypted.stdout, kubeconfig=False)
    common = {
        "object": "shop/db",
        "keyId": str(KEY_ID),
        "keyVersion": 3,
        "algorithm": "AES_256_GCM",
        "plaintextBytesExact": True,
        "authenticated": False,
    }
    expected = [common | {"dataKey": "a", "plaintextBytes": 1}, common | {"dataKey": "b", "plaintextBytes": 0}]
    assert json.loads(result.text) == expected
    assert "nothing is authenticated" in result.stderr
    assert api.requests == []


def test_inspect_reads_a_single_value(cli: Cli) -> None:
    blob = yaml.safe_load(cli("encrypt", "--key", "prod", stdin=SECRET).text)["spec"]["encryptedData"]["a"]
    (finding,) = json.loads(cli("inspect", "-o", "json", stdin=blob + "\n").text)
    assert (finding["object"], finding["dataKey"], finding["plaintextBytes"]) == ("", "", 1)


@pytest.mark.parametrize(
    ("vector", "algorithm", "shown", "exact"),
    [
        ("oaep-sha1-size-16", "RSA_OAEP_SHA1_AES_256_GCM", "16", True),
        ("oaep-sha256-rsa-4096", "RSA_OAEP_SHA256_AES_256_GCM", "5", True),
        ("cbc-size-16", "AES_256_CBC_HMAC_SHA256", "up to 31", False),
        ("nonce-16-size-16", "AES_256_GCM_IV16", "16", True),
    ],
)
def test_inspect_knows_every_algorithm(cli: Cli, vector: str, algorithm: str, shown: str, exact: bool) -> None:
    entry = VECTORS[vector]
    row = cli("inspect", stdin=entry["blob"], kubeconfig=False).text.splitlines()[1]
    assert row.split()[3:] == ["3", algorithm, *shown.split()]
    (finding,) = json.loads(cli("inspect", "-o", "json", stdin=entry["blob"], kubeconfig=False).text)
    assert (finding["algorithm"], finding["plaintextBytesExact"]) == (algorithm, exact)
    assert finding["plaintextBytes"] == int(shown.removeprefix("up to "))
    assert finding["keyId"].replace("-", "") == entry["keyId"]


PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n"
RSA_KEY = {
    "metadata": {"name": "sealing"},
    "spec": {"keySpec": "RSA_3072"},
    "status": {"state": "Enabled", "currentVersion": 1, "publicKey": PUBLIC_KEY, "oaepHash": "sha1"},
}


def test_an_rsa_key_is_shown_with_what_it_takes_to_seal(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(200, RSA_KEY), Answer(200, RSA_KEY))
    shown = cli("keys", "show", "sealing").text
    assert shown.splitlines()[1].split() == ["sealing", "Enabled", "RSA_3072", "1", "-"]
    assert shown.endswith(f"\nRSA-OAEP with sha1\n{PUBLIC_KEY}")
    structured = yaml.safe_load(cli("keys", "show", "sealing", "-o", "yaml").text)
    assert structured["status"]["publicKey"] == PUBLIC_KEY


def test_what_a_server_says_of_a_public_key_cannot_steer_a_terminal(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(200, RSA_KEY | {"status": {"publicKey": "a\x1b[2J", "oaepHash": "sha1\x9b\n\r"}}))
    assert cli("keys", "show", "sealing").text.endswith("\nRSA-OAEP with sha1\\x9b\\n\\r\na\\x1b[2J\n")


def test_tables_are_one_line_a_row_whatever_the_names_hold(cli: Cli, api: FakeApi) -> None:
    manifest = yaml.safe_load(cli("encrypt", "--key", "prod", stdin=SECRET).text)
    manifest["metadata"]["name"] = "db\x1b[2J\nshop/forged\u202e"
    inspected = cli("inspect", stdin=yaml.safe_dump(manifest)).text
    assert len(inspected.splitlines()) == 3
    assert "\nshop/db\\x1b[2J\\nshop/forged\\u202e   a " in inspected

    api.fail(Answer(200, {"items": [{"metadata": {"name": "prod\x9b2J\n"}, "status": {"state": "Enabled\x07"}}]}))
    listed = cli("keys", "list", "-n", "shop").text
    assert listed.splitlines()[1].split() == ["prod\\x9b2J\\n", "Enabled\\x07", "-", "-", "-"]


@pytest.mark.parametrize("text", ["U1Ix", "U1IxAAAA", "U1Ix" + "A" * 80])
def test_inspect_refuses_what_is_no_value(cli: Cli, text: str) -> None:
    result = cli("inspect", stdin=text)
    assert (result.code, result.stdout) == (1, b"")
    assert result.stderr.startswith("error: ")


def test_keys_are_structured_on_request(cli: Cli) -> None:
    listed = json.loads(cli("keys", "list", "-n", "shop", "-o", "json").text)
    assert (listed["kind"], [key["metadata"]["name"] for key in listed["items"]]) == ("KeyList", ["prod", "old"])
    shown = yaml.safe_load(cli("keys", "show", "prod", "-n", "shop", "-o", "yaml").text)
    assert shown["status"] == {"keyId": str(KEY_ID), "state": "Enabled", "currentVersion": 3}


def test_a_key_that_is_not_ready_yet_is_shown(cli: Cli, api: FakeApi) -> None:
    api.fail(
        Answer(200, {"metadata": {"name": "new"}, "spec": {"keySpec": "AES_256"}, "status": {"state": "Creating"}})
    )
    assert cli("keys", "show", "new").text.splitlines()[1].split() == ["new", "Creating", "AES_256", "-", "-"]


def test_version_of_client_and_server(cli: Cli) -> None:
    answer = json.loads(cli("version", "-o", "json").text)
    assert answer["client"]["version"] == __version__
    assert answer["server"]["apiVersions"] == ["crypto.strongroom.dev/v1alpha1"]


def test_version_without_a_server_still_tells_the_clients(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(404, "404 page not found"))
    result = cli("version")
    assert result.code == 0
    assert result.text.splitlines()[1] == "Server: not reachable"
    assert "warning: " in result.stderr
    assert cli("version", "--client", kubeconfig=False).code == 0


def test_a_server_of_another_version_is_pointed_out(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(200, {"versions": [{"groupVersion": "crypto.strongroom.dev/v2"}]}))
    assert "do not fit" in cli("version").stderr


def test_options_may_stand_before_or_behind_the_verb(cli: Cli, api: FakeApi) -> None:
    cli("-n", "before", "keys", "list")
    cli("keys", "-n", "between", "list")
    cli("-n", "before", "keys", "list", "-n", "behind")
    assert [request.path.split("/")[5] for request in api.requests] == ["before", "between", "behind"]


def test_requests_carry_impersonation_and_the_clients_name(cli: Cli, api: FakeApi) -> None:
    cli("keys", "list", "-n", "shop", "--as", "jane")
    headers = api.requests[0].headers
    assert headers["impersonate-user"] == "jane"
    assert headers["user-agent"] == f"strongroom/{__version__}"


@pytest.mark.parametrize(
    "verb", [[], ["encrypt"], ["decrypt"], ["inspect"], ["keys"], ["keys", "list"], ["keys", "show"], ["version"]]
)
def test_every_help_has_an_example_and_the_exit_codes(cli: Cli, verb: list[str]) -> None:
    result = cli(*verb, "--help")
    assert (result.code, result.stderr) == (0, "")
    assert "Example" in result.text
    assert "strongroom " in result.text.partition("Example")[2]
    assert "Exit codes:" in result.text
    assert cli(*verb, "-h").stdout == result.stdout


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys\nfrom strongroom.cli.main import run\nrun(['--help'])\n"
        "heavy = {'kopf', 'pkcs11', 'aiohttp', 'msgspec', 'cryptography', 'kubernetes', 'ruamel', 'yaml', 'urllib3'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    child = process(code, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, stderr = child.communicate()
    assert (child.returncode, stderr.decode().strip()) == (0, "[]")


def test_the_light_client_needs_nothing_of_the_operator() -> None:
    """Every verb is loaded where the operator's packages cannot be imported."""
    code = (
        "import sys\n"
        "operator = ('kopf', 'pkcs11', 'aiohttp', 'msgspec', 'cryptography', 'prometheus_client')\n"
        "sys.modules.update(dict.fromkeys(operator))\n"
        "from strongroom.cli.main import _VERBS, run\n"
        "sys.exit(max(run([verb, '--help']) for verb in _VERBS) or run(['version']))\n"
    )
    child = process(code, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert child.wait() == 0


@pytest.mark.parametrize(
    ("argv0", "expected"),
    [
        ("/usr/bin/strongroom", "strongroom"),
        ("kubectl-strongroom", "kubectl strongroom"),
        ("/x/kubectl-strongroom.exe", "kubectl strongroom"),
        ("-c", "strongroom"),
    ],
)
def test_usage_names_the_program_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv0: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [argv0, "encrypt", "--help"])
    with pytest.raises(SystemExit) as exit_info:
        main_module.main()
    assert exit_info.value.code == 0
    assert f"Usage: {expected} encrypt" in capsys.readouterr().out


def test_an_interrupt_ends_with_130_and_writes_nothing(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cluster = {"name": "c", "cluster": {"server": server}}
        context = {"name": "c", "context": {"cluster": "c"}}
        (tmp_path / "k").write_text(json.dumps({"current-context": "c", "clusters": [cluster], "contexts": [context]}))
        child = process(
            RUN, "--kubeconfig", str(tmp_path / "k"), "keys", "list", "-n", "shop",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # As in a terminal: a shell's background jobs ignore the signal, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            child.send_signal(signal.SIGINT)
            stdout, stderr = child.communicate()
    assert (child.returncode, stdout) == (130, b"")
    assert b"Traceback" not in stderr


def test_a_closed_pipe_is_no_error_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = process(RUN, "version", "--client", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, stderr = child.communicate()
    assert (child.returncode, stderr) == (141, b"")


def on_terminal(*arguments: str, stdin: bytes, **environment: str) -> tuple[int, str]:
    """Run with stdout and stderr on a pseudo terminal; returns exit code and what appeared there."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        env={"PYTHONPATH": str(SOURCE_ROOT), "TERM": "xterm", **environment},
        stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    assert child.stdin is not None
    child.stdin.write(stdin)
    child.stdin.close()
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # EIO: the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return child.wait(), shown.decode()


def test_plaintext_reaches_a_terminal_only_when_asked(cli: Cli, api: FakeApi) -> None:
    encrypted = cli("encrypt", "--key", "prod", stdin=SECRET)
    arguments = ["--kubeconfig", str(api.kubeconfig), "decrypt", "--raw", "--data-key", "a"]
    api.requests.clear()
    code, shown = on_terminal(*arguments, stdin=encrypted.stdout)
    assert (code, api.requests) == (2, [])
    assert "--show" in shown
    assert on_terminal(*arguments, "--show", stdin=encrypted.stdout) == (0, "1")


def test_colour_only_on_a_terminal_and_never_with_no_color() -> None:
    assert "\x1b[" in on_terminal("inspect", stdin=b"U1Ix")[1]
    assert "\x1b[" not in on_terminal("inspect", stdin=b"U1Ix", NO_COLOR="1")[1]
    child = process(RUN, "inspect", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, stderr = child.communicate(b"U1Ix")
    assert b"\x1b[" not in stderr


def test_in_a_pod_without_kubeconfig_the_pods_account_is_used(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    result = cli("keys", "list", "-n", "shop", kubeconfig=False)
    assert "Service token file does not exist" in result.stderr


def test_statuses_without_details_are_enough(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(403, status(403, "Forbidden", "no", details=None)))
    assert cli("keys", "list").code == 5
