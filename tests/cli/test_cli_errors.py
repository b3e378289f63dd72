# SPDX-License-Identifier: Apache-2.0
"""Failures: what is said, what is never said, and the exit code."""

import base64
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.apiserver.status import InvalidField, of_error
from strongroom.errors import Reason, StrongroomError
from tests.cli.conftest import Cli, Result
from tests.cli.fakeapi import Answer, FakeApi, status

CANARY = "canary-7f3a-plaintext"
CANARY_BASE64 = base64.b64encode(CANARY.encode()).decode()


def secret(**changes: Any) -> dict[str, Any]:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"}}
    return body | {"stringData": {"password": CANARY}} | changes


def assert_refused(result: Result, cause: str, *, code: int = 1) -> None:
    """The three lines of every failure, nothing on stdout, nothing secret on stderr."""
    assert (result.code, result.stdout) == (code, b""), result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert [line.partition(": ")[0] for line in lines] == ["error", "cause", "fix"], result.stderr
    assert lines[1] == f"cause: {cause}"
    assert CANARY not in result.stderr
    assert CANARY_BASE64 not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (secret(stringdata={"a": CANARY}), "a Secret has no field 'stringdata'"),
        (secret(data={"password": CANARY + "!"}), "not valid base64"),
        (secret(data={"password": CANARY_BASE64[:-1]}), "not valid base64"),
        (secret(data={"password": CANARY_BASE64 + "===="}), "not valid base64"),
        (secret(data={"password": "ä" + CANARY_BASE64}), "not valid base64"),
        (secret(data={"password": CANARY_BASE64 + " " + CANARY_BASE64}), "not valid base64"),
        (secret(data=[CANARY]), "data is not a mapping"),
        (secret(stringData={"a": [CANARY]}), "a value in stringData is not a string"),
        (secret(stringData={"a/b": CANARY}), "data key 'a/b' is not allowed"),
        (secret(stringData={".": CANARY}), "data key '.' is not allowed"),
        (secret(stringData={"..x": CANARY}), "data key '..x' is not allowed"),
        (secret(stringData={"": CANARY}), "data key '' is not allowed"),
        (secret(stringData={"a\n": CANARY}), "is not allowed"),
        (secret(stringData={"k" * 254: CANARY}), "is not allowed"),
        (secret(stringData={f"k{number}": CANARY for number in range(65)}), "65 values, at most 64"),
        (secret(stringData={}), "no values to encrypt"),
        (secret(metadata={"generateName": "db-", "namespace": "shop"}), "metadata.name is missing"),
        (secret(metadata={"name": "../x", "namespace": "shop"}), "name '../x' is not a valid"),
        (secret(metadata={"name": 12, "namespace": "shop"}), "name is not a string"),
        (secret(metadata={"name": "db", "namespace": "a/b"}), "namespace 'a/b' is not a valid"),
        (secret(metadata={"name": "db", "namespace": "a.b"}), "namespace 'a.b' is not a valid"),
        (secret(metadata={"name": "db", "labels": {"a": True}}), "a value in labels is not a string"),
        (secret(immutable="yes"), "immutable is not a boolean"),
        (secret(type=5), "type is not a string"),
        (secret(apiVersion=None), "apiVersion is missing"),
        ({"apiVersion": "v1", "kind": "SecretList", "items": [secret()]}, "kind SecretList is not supported"),
        ({"apiVersion": "v1", "kind": "List", "items": [CANARY, "Secret"]}, "an item of a List is not an object"),
        ({"apiVersion": "v1", "kind": "List", "Secret": 1}, "a List without items"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_bad_manifests_are_refused_before_anything_is_sent(
    cli: Cli, api: FakeApi, manifest: dict[str, Any], said: str
) -> None:
    for text in (yaml.safe_dump(manifest), json.dumps(manifest)):
        result = cli("encrypt", "--key", "prod", stdin=text)
        assert_refused(result, "InvalidRequest")
        assert said in result.stderr
        assert "(stdin: document 1" in result.stderr
    assert api.requests == []


@pytest.mark.parametrize("kind", ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token"])
def test_types_with_authority_are_refused(cli: Cli, api: FakeApi, kind: str) -> None:
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret(type=kind)))
    assert_refused(result, "ForbiddenSecretType")
    assert api.requests == []


@pytest.mark.parametrize(
    "text",
    [
        f"kind: Secret\nstringData: {{a: {CANARY}, a: {CANARY}}}\n",
        f'{{"kind": "Secret", "stringData": {{"a": "{CANARY}", "a": "{CANARY}"}}}}',
        f"kind: Secret\nstringData:\n  a: {CANARY}: {CANARY}\n",
        f"kind: Secret\nstringData:\n  a: *{CANARY}\n",
        f"kind: Secret\nstringData:\n  a: '{CANARY}\n",
        f'kind: Secret\nstringData:\n  a: "\\q{CANARY}"\n',
        f"kind: Secret\nstringData:\n\ta: {CANARY}\n",
        f"kind: Secret\na: {CANARY}\n...\nkind: Secret\n",
        f"kind: Secret\nstringData: !!int {CANARY}\n",
        f"kind: Secret\nstringData: !!timestamp {CANARY}\n",
        f"kind: Secret\nstringData: !!binary {CANARY}\n",
        f"kind: Secret\na: {CANARY}\0\n",
        "kind: Secret\na: " + "[" * 5000,
    ],
)
def test_broken_yaml_is_refused_without_quoting_it(cli: Cli, api: FakeApi, text: str) -> None:
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert_refused(result, "InvalidRequest")
    assert api.requests == []


def test_input_that_is_not_utf_8_is_refused(cli: Cli) -> None:
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()).encode("utf-16"))
    assert_refused(result, "InvalidRequest")


@pytest.mark.parametrize(
    ("answer", "cause", "code", "said"),
    [
        (
            Answer(401, status(401, "Unauthorized", "Unauthorized")),
            "AccessDenied",
            5,
            "does not accept your credentials",
        ),
        (Answer(403, status(403, "Forbidden", 'User "u" cannot create')), "AccessDenied", 5, 'User "u" cannot create'),
        (Answer(403, status(403, "AccessDenied", "u may not")), "AccessDenied", 5, "u may not"),
        (Answer(404, "404 page not found"), "Unavailable", 6, "the cluster does not serve it"),
        (Answer(404, status(404, "NotFound", "not found")), "Unavailable", 6, "kubectl get apiservice"),
        (Answer(404, status(404, "KeyNotFound", "there is no key x")), "KeyNotFound", 1, "there is no key x"),
        (Answer(409, status(409, "KeyDisabled", "key is disabled")), "KeyDisabled", 1, "key is disabled"),
        (Answer(409, status(409, "Conflict", "no")), "Conflict", 1, "no"),
        (Answer(409, status(409, "KeyFromTheFuture", "no")), "KeyFromTheFuture", 1, "no"),
        (Answer(429, status(429, "TooManyRequests", "slow down")), "TooManyRequests", 6, "slow down"),
        (Answer(500, status(500, "InternalError", "oops")), "InternalError", 6, "oops"),
        (Answer(502, "<html>bad gateway</html>"), "Unavailable", 6, "answered 502 without a message"),
        (Answer(503, "service unavailable"), "Unavailable", 6, "nothing answers"),
        (Answer(503, status(503, "ServiceUnavailable", "x")), "Unavailable", 6, "nothing answers"),
        (Answer(503, status(503, "HSMUnavailable", "token away")), "HSMUnavailable", 6, "token away"),
        (Answer(302, "", {"Location": "https://192.0.2.1/"}), "InvalidRequest", 1, "answered 302"),
        (Answer(201, "[]"), "Internal", 1, "not a JSON object"),
        (Answer(201, {"status": {}}), "Internal", 1, "status.encryptedData is missing"),
        (Answer(201, {"status": {"encryptedData": {"password": 1}}}), "Internal", 1, "status.encryptedData is missing"),
    ],
)
def test_answers_of_the_server_become_reasons_and_exit_codes(
    cli: Cli, api: FakeApi, answer: Answer, cause: str, code: int, said: str
) -> None:
    api.fail(answer)
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, cause, code=code)
    assert said in result.stderr
    assert len(api.requests) == 1


def test_causes_of_a_status_are_shown(cli: Cli, api: FakeApi) -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "too long", "field": "spec.values[a]"}]
    api.fail(Answer(400, status(400, "InvalidRequest", "refused", details={"causes": causes})))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert "error: refused; spec.values[a]: too long (stdin: document 1: Secret shop/db)" in result.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StrongroomError(Reason.KEY_DISABLED, "key 'prod' is Disabled", hint="Enable it"), "key 'prod' is Disabled"),
        (InvalidField("spec.name", "is wrong", hint="Enable it"), "spec.name: is wrong"),
    ],
)
def test_the_remedy_of_the_server_is_the_only_one(cli: Cli, api: FakeApi, error: StrongroomError, line: str) -> None:
    answer = of_error(error, key_name="prod")
    assert isinstance(answer.body, bytes)
    api.fail(Answer(answer.status, json.loads(answer.body)))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert result.stderr.splitlines() == [
        f"error: {line} (stdin: document 1: Secret shop/db)",
        f"cause: {error.reason}",
        "fix: Enable it",
    ]


@pytest.mark.parametrize("causes", ["x", [1], [{"reason": "Remedy"}], [{"reason": "Remedy", "message": "is"}]])
def test_causes_that_are_no_remedy_leave_message_and_fix_alone(cli: Cli, api: FakeApi, causes: Any) -> None:
    api.fail(Answer(404, status(404, "KeyNotFound", "no such key. This", details={"causes": causes})))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert "error: no such key. This" in result.stderr
    assert "fix: 'strongroom keys list' shows the keys" in result.stderr


@pytest.mark.parametrize("quoted", [CANARY, CANARY_BASE64])
def test_a_message_that_quotes_a_value_is_not_shown(cli: Cli, api: FakeApi, quoted: str) -> None:
    api.fail(Answer(400, status(400, "BadRequest", f"cannot decode {quoted} into X")))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, "BadRequest")
    assert "quotes a value" in result.stderr


def test_no_more_than_16_characters_of_a_ciphertext_are_shown(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(400, status(400, "InvalidCiphertext", "U1Ix" + "Ab+/" * 40 + "== is bad")))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert "error: U1IxAb+/Ab+/Ab+/… is bad" in result.stderr


def test_control_characters_of_a_message_do_not_reach_the_terminal(cli: Cli, api: FakeApi) -> None:
    api.fail(Answer(409, status(409, "KeyDisabled", "a\x1b]0;evil\x07\nfix: run me\u202e")))
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert "error: a\\x1b]0;evil\\x07\\nfix: run me\\u202e" in result.stderr


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    recorded: list[float] = []
    monkeypatch.setattr(time, "sleep", recorded.append)
    return recorded


def test_retry_after_is_obeyed_and_then_it_works(cli: Cli, api: FakeApi, waits: list[float]) -> None:
    busy = Answer(429, status(429, "Throttled", "busy"), {"Retry-After": "2"})
    away = Answer(503, status(503, "HSMUnavailable", "away"), {"Retry-After": "1"})
    api.fail(busy, away)
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert result.code == 0, result.stderr
    assert waits == [2, 1]
    assert "trying again in 2 s (1 of 3)" in result.stderr


def test_retry_after_is_obeyed_a_bounded_number_of_times(cli: Cli, api: FakeApi, waits: list[float]) -> None:
    api.fail(*[Answer(503, status(503, "HSMUnavailable", "away"), {"Retry-After": "1"})] * 10)
    assert_refused(cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret())), "HSMUnavailable", code=6)
    assert (len(api.requests), waits) == (4, [1, 1, 1])


@pytest.mark.parametrize("header", ["3600", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1e9"])
def test_a_wait_that_is_too_long_or_not_understood_is_not_begun(
    cli: Cli, api: FakeApi, waits: list[float], header: str
) -> None:
    api.fail(Answer(503, status(503, "HSMUnavailable", "away"), {"Retry-After": header}))
    assert_refused(cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret())), "HSMUnavailable", code=6)
    assert waits == []


def test_only_answers_that_mean_busy_are_repeated(cli: Cli, api: FakeApi, waits: list[float]) -> None:
    api.fail(Answer(500, status(500, "InternalError", "x"), {"Retry-After": "1"}))
    assert cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret())).code == 6
    assert (len(api.requests), waits) == (1, [])


def kubeconfig(path: Path, server: str, **cluster: Any) -> list[str]:
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": CANARY}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(config))
    return ["--kubeconfig", str(path)]


def test_a_server_that_refuses_connections_is_unavailable(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        arguments = kubeconfig(tmp_path / "k", f"https://127.0.0.1:{unused.getsockname()[1]}")
        result = cli(*arguments, "encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, "Unavailable", code=6)
    assert "connection refused" in result.stderr


def test_a_server_that_does_not_answer_is_given_up_on(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        arguments = kubeconfig(tmp_path / "k", f"http://127.0.0.1:{silent.getsockname()[1]}")
        result = cli(*arguments, "--request-timeout", "0.2", "keys", "list", "-n", "shop")
    assert_refused(result, "Unavailable", code=6)
    assert "did not answer in time" in result.stderr


def test_a_server_with_another_certificate_gets_nothing(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    arguments = kubeconfig(tmp_path / "k", f"https://127.0.0.1:{api.port}")
    result = cli(*arguments, "encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, "Unavailable", code=6)
    assert "certificate is not trusted" in result.stderr
    assert api.requests == []


def test_switched_off_verification_is_pointed_out(
    cli: Cli, api: FakeApi, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    arguments = kubeconfig(tmp_path / "k", f"https://127.0.0.1:{api.port}", **{"insecure-skip-tls-verify": True})
    result = cli(*arguments, "keys", "list", "-n", "shop")
    assert "switches TLS verification off" in result.stderr


def test_values_are_not_sent_over_plain_http_to_another_machine(cli: Cli, tmp_path: Path) -> None:
    arguments = kubeconfig(tmp_path / "k", "http://192.0.2.1:8080")
    result = cli(*arguments, "encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, "InvalidRequest")
    assert "is not https" in result.stderr


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{", f"users: {CANARY}", "clusters: []\ncontexts: []\nusers: []\n"]
)
def test_unusable_kubeconfigs_are_reported_without_their_content(cli: Cli, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "k"
    if content is not None:
        file.write_text(content)
    for arguments in (["keys", "list"], ["keys", "list", "-n", "shop"]):
        assert_refused(cli("--kubeconfig", str(file), *arguments), "InvalidRequest")


def test_an_unknown_kube_context_is_reported(cli: Cli) -> None:
    for arguments in (["keys", "list"], ["keys", "list", "-n", "shop"]):
        assert_refused(cli("--kube-context", "nope", *arguments), "InvalidRequest")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["encrypt"],
        ["encrypt", "--key"],
        ["encrypt", "--key", "prod", "--scope", "strict"],
        ["encrypt", "--key", "prod", "--context", "novalue"],
        ["encrypt", "--key", "prod", "--context", "a=1", "--context", "a=2"],
        ["encrypt", "--key", "prod", "--raw"],
        ["encrypt", "--key", "prod", "--raw", "--name", "db", "--data-key", "p"],
        ["encrypt", "--key", "prod", "--raw", "-n", "shop", "--name", "db", "--data-key", "p", "-f", "x"],
        ["encrypt", "--key", "prod", "--name", "db"],
        ["encrypt", "--key", "prod", "-f", "-", "-f", "-"],
        ["encrypt", "--key", "prod", "value-as-argument"],
        ["decrypt", "--raw"],
        ["decrypt", "--data-key", "p"],
        ["decrypt", "--raw", "--data-key", "p"],
        ["keys"],
        ["keys", "show"],
        ["--request-timeout", "soon", "keys", "list"],
        ["unknown"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_sends_nothing(cli: Cli, api: FakeApi, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert (result.code, result.stdout, api.requests) == (2, b"", [])
    assert re.search("Usage: strongroom|Error: ", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["encrypt", "--key", "Prod"], "InvalidRequest"),
        (["encrypt", "--key", "../../../api"], "InvalidRequest"),
        (["encrypt", "--key", "prod", "--context", "=v"], "InvalidEncryptionContext"),
        (["encrypt", "--key", "prod", "--context", "k=" + "v" * 1024], "InvalidEncryptionContext"),
        (["encrypt", "--key", "prod", "-f", "absent.yaml"], "InvalidRequest"),
        (["encrypt", "--key", "prod", "-f", "."], "InvalidRequest"),
        (["encrypt", "--key", "prod", "--raw", "-n", "a/b", "--name", "d", "--data-key", "p"], "InvalidRequest"),
        (["encrypt", "--key", "prod", "--raw", "-n", "shop", "--name", "d/e", "--data-key", "p"], "InvalidRequest"),
        (["encrypt", "--key", "prod", "--raw", "-n", "shop", "--name", "d", "--data-key", "p/q"], "InvalidRequest"),
        (["keys", "show", "../x"], "InvalidRequest"),
        (["keys", "list", "-n", "../x"], "InvalidRequest"),
        (["inspect", "-f", "absent"], "InvalidRequest"),
    ],
)
def test_bad_names_and_paths_are_refused_before_anything_is_sent(
    cli: Cli, api: FakeApi, arguments: list[str], cause: str
) -> None:
    assert_refused(cli(*arguments), cause)
    assert api.requests == []


def test_a_raw_value_over_the_limit_is_refused(cli: Cli, api: FakeApi) -> None:
    arguments = ["encrypt", "--key", "prod", "--raw", "-n", "shop", "--name", "db", "--data-key", "p"]
    assert_refused(cli(*arguments, stdin=b"x" * 4097), "PlaintextTooLarge")
    assert api.requests == []


def encrypted(**changes: Any) -> dict[str, Any]:
    blob = "U1Ix" + "AV8MnF4KUU9snWotWn4fDBEAAAAD" + "A" * 40
    spec = {"keyRef": {"name": "prod"}, "scope": "Strict", "encryptedData": {"a": blob}} | changes
    metadata = {"name": "db", "namespace": "shop"}
    return {"apiVersion": "kms.strongroom.dev/v1alpha1", "kind": "EncryptedSecret", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("changes", "cause", "said"),
    [
        ({"encryptedData": {"a": "U1Ix"}}, "InvalidCiphertext", "data key a"),
        ({"encryptedData": {"a": CANARY_BASE64}}, "UnsupportedFormat", "not a Strongroom value"),
        ({"encryptedData": {"a": "U1Ix/" + "A" * 79}}, "UnsupportedFormat", "uses algorithm"),
        ({"encryptedData": {"a": "U1Ix" + "A" * 9000}}, "PlaintextTooLarge", "data key a"),
        ({"encryptedData": {}}, "InvalidRequest", "0 values"),
        ({"encryptedData": {"a/b": "U1Ix"}}, "InvalidRequest", "data key 'a/b'"),
        ({"scope": "Everywhere"}, "InvalidRequest", "unknown scope 'Everywhere'"),
        ({"keyRef": {"name": "../x"}}, "InvalidRequest", "key name '../x'"),
        ({"keyRef": {}}, "InvalidRequest", "key name ''"),
        ({"encryptionContext": {"": "x"}}, "InvalidEncryptionContext", "empty key"),
        ({"template": {"type": "bootstrap.kubernetes.io/token"}}, "ForbiddenSecretType", "carries authority"),
    ],
)
def test_bad_encrypted_manifests_are_refused_before_anything_is_sent(
    cli: Cli, api: FakeApi, changes: dict[str, Any], cause: str, said: str
) -> None:
    result = cli("decrypt", stdin=yaml.safe_dump(encrypted(**changes)))
    assert_refused(result, cause)
    assert said in result.stderr
    assert api.requests == []


@pytest.mark.parametrize("values", [{"a": CANARY_BASE64}, {}, {"a": "!"}, {"b": ""}, {"a": 5}, None])
def test_an_answer_that_does_not_fit_the_ciphertext_is_refused(cli: Cli, api: FakeApi, values: Any) -> None:
    api.fail(Answer(201, {"status": {"values": values}}))
    assert_refused(cli("decrypt", stdin=yaml.safe_dump(encrypted())), "Internal")


def test_one_value_that_does_not_decrypt_keeps_all_others_back(cli: Cli, api: FakeApi) -> None:
    good = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    result = cli("decrypt", stdin=good.text + "---\n" + yaml.safe_dump(encrypted()))
    assert_refused(result, "InvalidCiphertext")
    assert "document 2: EncryptedSecret shop/db" in result.stderr


def test_values_in_comments_and_annotations_are_pointed_out_but_not_quoted(cli: Cli) -> None:
    text = (
        f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: shop\n"
        f"  annotations: {{note: 'is {CANARY}'}}\n"
        f"data:\n  password: {CANARY_BASE64} # {CANARY}\n  other: b3RoZXI=\n"
    )
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert result.code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [re.search(r"stands in (an? \w+)", line)[1] for line in warnings] == ["a comment", "an annotation"]  # type: ignore[index]
    assert all("data key password)" in line for line in warnings)
    assert CANARY not in result.stderr


def test_an_unexpected_failure_shows_where_and_not_what(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot handle {CANARY}")

    monkeypatch.setattr("strongroom.cli.keysapi.encrypt", broken)
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret()))
    assert_refused(result, "Internal")
    assert "unexpected RuntimeError at test_cli_errors.py line" in result.stderr
