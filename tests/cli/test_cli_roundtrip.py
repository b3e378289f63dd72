# SPDX-License-Identifier: Apache-2.0
"""Secret → EncryptedSecret → Secret, with nothing lost on the way."""

import base64
import json
from typing import Any

import pytest
import yaml

from strongroom.model.limits import MAX_PLAINTEXT_BYTES, MAX_VALUES
from tests.cli.conftest import Cli
from tests.cli.fakeapi import FakeApi

ALL_BYTES = bytes(range(256))
KINDS = [
    ("Opaque", {"password": b"hunter2!", "binary": ALL_BYTES, "empty": b"", "nul": b"\0", "text": "grüße\n".encode()}),
    ("kubernetes.io/tls", {"tls.crt": b"-----BEGIN CERTIFICATE-----\nAA==\n", "tls.key": ALL_BYTES * 8}),
    ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": b'{"auths":{"r.example":{"auth":"dTpw"}}}'}),
    ("kubernetes.io/basic-auth", {"username": b"admin", "password": b"yes"}),
    ("kubernetes.io/ssh-auth", {"ssh-privatekey": b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + ALL_BYTES}),
    ("example.com/own", {"a": b"1"}),
]


def secret(data: dict[str, bytes], **more: Any) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": "db", "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded} | more


def decoded(manifest: dict[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in manifest["data"].items()}


@pytest.mark.parametrize("output", ["yaml", "json"])
@pytest.mark.parametrize("as_json", [False, True], ids=["from-yaml", "from-json"])
@pytest.mark.parametrize(("kind", "data"), KINDS, ids=[kind for kind, _ in KINDS])
def test_every_kind_of_secret_comes_back(
    cli: Cli, kind: str, data: dict[str, bytes], as_json: bool, output: str
) -> None:
    labels, annotations = {"app": "no", "tier": "12"}, {"note": "a: b # c", "on": "~"}
    metadata = {"name": "db", "namespace": "shop", "labels": labels, "annotations": annotations}
    original = secret(data, type=kind, immutable=True, metadata=metadata)
    text = json.dumps(original) if as_json else yaml.safe_dump(original)

    encrypted = cli("encrypt", "--key", "prod", "-o", output, stdin=text)
    assert encrypted.code == 0, encrypted.stderr
    manifest = yaml.safe_load(encrypted.text)
    assert (manifest["apiVersion"], manifest["kind"]) == ("kms.strongroom.dev/v1alpha1", "EncryptedSecret")
    assert manifest["metadata"] == {"name": "db", "namespace": "shop", "labels": labels}
    spec = manifest["spec"]
    assert spec["keyRef"] == {"name": "prod"}
    assert spec["scope"] == "Strict"
    assert spec["template"] == {
        "type": kind,
        "immutable": True,
        "metadata": {"labels": labels, "annotations": annotations},
    }
    assert list(spec["encryptedData"]) == [str(key) for key in yaml.safe_load(text)["data"]]
    assert all(blob.startswith("U1Ix") for blob in spec["encryptedData"].values())
    assert set(spec) == {"keyRef", "scope", "encryptedData", "template"}

    decrypted = cli("decrypt", "-o", output, stdin=encrypted.stdout)
    assert decrypted.code == 0, decrypted.stderr
    result = yaml.safe_load(decrypted.text)
    assert decoded(result) == data
    assert result == original


def test_string_data_wins_over_data_and_order_is_kept(cli: Cli, api: FakeApi) -> None:
    manifest = secret({"b": b"old", "a": b"kept"}, stringData={"b": "new", "c": "more"})
    encrypted = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(manifest, sort_keys=False))
    assert encrypted.code == 0, encrypted.stderr
    assert list(yaml.safe_load(encrypted.text)["spec"]["encryptedData"]) == ["b", "a", "c"]
    result = yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text)
    assert decoded(result) == {"b": b"new", "a": b"kept", "c": b"more"}
    assert "stringData" not in result


def test_one_object_is_one_request(cli: Cli, api: FakeApi) -> None:
    data = {f"k{number}": b"x" for number in range(MAX_VALUES)}
    documents = [secret(data), secret({"a": b"1"}, metadata={"name": "other", "namespace": "shop"})]
    result = cli("encrypt", "--key", "prod", "--context", "team=payments", stdin=yaml.safe_dump_all(documents))
    assert result.code == 0, result.stderr
    assert [request.path for request in api.requests] == [
        "/apis/crypto.strongroom.dev/v1alpha1/namespaces/shop/keys/prod/encrypt"
    ] * 2
    spec = api.requests[0].body["spec"]
    assert (spec["scope"], spec["name"], spec["encryptionContext"]) == ("Strict", "db", {"team": "payments"})
    assert len(spec["values"]) == MAX_VALUES


@pytest.mark.parametrize("size", [0, 1, MAX_PLAINTEXT_BYTES - 1, MAX_PLAINTEXT_BYTES])
def test_sizes_up_to_the_limit_round_trip(cli: Cli, size: int) -> None:
    encrypted = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret({"a": b"\xff" * size})))
    assert encrypted.code == 0, encrypted.stderr
    assert decoded(yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text)) == {"a": b"\xff" * size}


@pytest.mark.parametrize("field", ["data", "stringData"])
def test_one_byte_over_the_limit_is_refused_before_anything_is_sent(cli: Cli, api: FakeApi, field: str) -> None:
    value = "x" * (MAX_PLAINTEXT_BYTES + 1)
    text = base64.b64encode(value.encode()).decode() if field == "data" else value
    good = secret({"a": b"fine"})
    bad = secret({}) | {field: {"big": text}}
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump_all([good, bad]))
    assert (result.code, result.stdout, api.requests) == (1, b"", [])
    assert "4097 bytes" in result.stderr
    assert "(stdin: document 2: Secret shop/db: data key big)" in result.stderr
    assert "cause: PlaintextTooLarge" in result.stderr


@pytest.mark.parametrize(
    ("scope", "moved", "works"),
    [
        ("Strict", {}, True),
        ("Strict", {"name": "other"}, False),
        ("Strict", {"namespace": "elsewhere"}, False),
        ("Namespace", {"name": "other"}, True),
        ("Namespace", {"namespace": "elsewhere"}, False),
        ("Cluster", {"name": "other", "namespace": "elsewhere"}, True),
    ],
)
def test_scope_decides_where_values_decrypt(cli: Cli, scope: str, moved: dict[str, str], works: bool) -> None:
    encrypted = cli("encrypt", "--key", "prod", "--scope", scope, stdin=yaml.safe_dump(secret({"a": b"1"})))
    manifest = yaml.safe_load(encrypted.text)
    manifest["metadata"].update(moved)
    result = cli("decrypt", stdin=yaml.safe_dump(manifest))
    if works:
        assert result.code == 0, result.stderr
    else:
        assert (result.code, result.stdout) == (1, b"")
        assert "cause: InvalidCiphertext" in result.stderr


def test_an_edited_encryption_context_does_not_decrypt(cli: Cli) -> None:
    encrypted = cli("encrypt", "--key", "prod", "--context", "team=a", stdin=yaml.safe_dump(secret({"a": b"1"})))
    changed = encrypted.text.replace("team: a", "team: b")
    assert changed != encrypted.text
    result = cli("decrypt", stdin=changed)
    assert (result.code, result.stdout) == (1, b"")


def test_what_the_server_sets_is_stripped(cli: Cli) -> None:
    metadata = {
        "name": "db",
        "namespace": "shop",
        "creationTimestamp": None,
        "uid": "u",
        "resourceVersion": "1",
        "managedFields": [{"manager": "kubectl"}],
        "ownerReferences": [{"kind": "X"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"data":{"a":"MQ=="}}'},
        "labels": {"app.kubernetes.io/managed-by": "Helm", "strongroom.dev/managed": "true", "app": "x"},
    }
    encrypted = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret({"a": b"1"}, metadata=metadata, status={})))
    assert encrypted.code == 0, encrypted.stderr
    manifest = yaml.safe_load(encrypted.text)
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(manifest["metadata"]) == {"name", "namespace", "labels"}
    assert manifest["spec"]["template"]["metadata"] == {"labels": {"app": "x"}}
    assert "creationTimestamp" not in encrypted.text
    assert "strongroom.dev/managed is not copied" in encrypted.stderr


def test_lists_are_encrypted_inside(cli: Cli) -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"on": "y"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [secret({"a": b"1"}), other]}
    encrypted = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(listed))
    assert encrypted.code == 0, encrypted.stderr
    items = yaml.safe_load(encrypted.text)["items"]
    assert [item["kind"] for item in items] == ["EncryptedSecret", "ConfigMap"]
    assert items[1] == other
    assert yaml.safe_load(cli("decrypt", stdin=encrypted.stdout).text) == {
        **listed,
        "items": [secret({"a": b"1"}, type="Opaque"), other],
    }


def test_other_documents_keep_every_byte(cli: Cli) -> None:
    before = "%YAML 1.1\n---   # head\nkind:   ConfigMap\napiVersion: v1\ndata: {a: yes,   b: 'x'} # Secret\n"
    after = "---\n# only a comment about a Secret\n---\n- not\n- an object, Secret\n...\n"
    text = before + "---\n" + yaml.safe_dump(secret({"a": b"1"})) + after
    result = cli("encrypt", "--key", "prod", stdin=text)
    assert result.code == 0, result.stderr
    assert result.text.startswith(before + "---\napiVersion: kms.strongroom.dev/v1alpha1\n")
    assert result.text.endswith(after)


def test_encrypting_twice_changes_nothing(cli: Cli, api: FakeApi) -> None:
    once = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret({"a": b"1"})))
    api.requests.clear()
    twice = cli("encrypt", "--key", "prod", stdin=once.stdout)
    assert (twice.code, twice.stdout, api.requests) == (0, once.stdout, [])
    assert "nothing to encrypt" in twice.stderr


def test_several_files_become_one_stream(cli: Cli, tmp_path: Any) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "b.yaml").write_text(
        yaml.safe_dump(secret({"a": b"1"}, metadata={"name": "b", "namespace": "s"}))
    )
    (tmp_path / "d" / "sub" / "a.json").write_text(
        json.dumps(secret({"a": b"1"}, metadata={"name": "a", "namespace": "s"}))
    )
    (tmp_path / "d" / "notes.txt").write_text("kind: Secret")
    (tmp_path / "d" / "c.yml").write_text("kind: ConfigMap")
    result = cli("encrypt", "--key", "prod", "-f", "d", "-f", "d/b.yaml")
    assert result.code == 0, result.stderr
    kinds = [
        (document["kind"], document.get("metadata", {}).get("name")) for document in yaml.safe_load_all(result.text)
    ]
    assert kinds == [("EncryptedSecret", "b"), ("ConfigMap", None), ("EncryptedSecret", "a")]


@pytest.mark.parametrize("head", ["%YAML 1.2\n", "# 100%\n%TAG ! tag:example.org,2000:\n"])
def test_a_directive_is_kept_at_the_head_and_refused_behind_another_file(cli: Cli, tmp_path: Any, head: str) -> None:
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(secret({"a": b"1"})))
    (tmp_path / "comment.yaml").write_text("# 100%\n")
    (tmp_path / "directive.yaml").write_text(f"{head}---\n{yaml.safe_dump(secret({'a': b'1'}))}")

    first = cli("encrypt", "--key", "prod", "-f", "directive.yaml", "-f", "plain.yaml", "-f", "comment.yaml")
    assert (first.code, first.text.startswith(f"{head}---\n")) == (0, True), first.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(first.text) if document]
    assert kinds == ["EncryptedSecret", "EncryptedSecret"]

    second = cli("encrypt", "--key", "prod", "-f", "plain.yaml", "-f", "directive.yaml")
    assert (second.code, second.stdout) == (1, b"")
    assert "begins with a YAML directive and cannot follow another file (directive.yaml)" in second.stderr
    assert cli("encrypt", "--key", "prod", "-i", "-f", "plain.yaml", "-f", "directive.yaml").code == 0


def test_raw_value_goes_both_ways(cli: Cli) -> None:
    value = ALL_BYTES + b"\n"
    blob = cli("encrypt", "--raw", "--key", "prod", "-n", "shop", "--name", "db", "--data-key", "p", stdin=value)
    assert blob.code == 0, blob.stderr
    assert blob.text.startswith("U1Ix")
    assert blob.text.count("\n") == 1
    assert "ends with a newline" in blob.stderr
    spec = {
        "keyRef": {"name": "prod"},
        "scope": "Strict",
        "encryptedData": {"p": blob.text.strip(), "q": blob.text.strip()},
    }
    manifest = {
        "apiVersion": "kms.strongroom.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": spec,
    }
    result = cli("decrypt", "--raw", "--data-key", "p", stdin=yaml.safe_dump(manifest))
    assert (result.code, result.stdout) == (0, value)


def test_raw_decrypts_nothing_but_the_value_asked_for(cli: Cli, api: FakeApi) -> None:
    encrypted = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret({"a": b"1", "b": b"2"})))
    assert cli("decrypt", "--raw", "--data-key", "b", stdin=encrypted.stdout).stdout == b"2"
    assert list(api.requests[-1].body["spec"]["encryptedData"]) == ["b"]


def test_large_objects_come_with_the_command_that_applies_them(cli: Cli) -> None:
    full = {f"value-{number}": b"x" * MAX_PLAINTEXT_BYTES for number in range(48)}
    result = cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret(full)))
    assert result.code == 0
    assert "kubectl apply --server-side" in result.stderr
    del full["value-0"], full["value-1"]
    assert "--server-side" not in cli("encrypt", "--key", "prod", stdin=yaml.safe_dump(secret(full))).stderr


@pytest.mark.parametrize(
    ("arguments", "in_manifest", "expected", "origin"),
    [
        (["-n", "shop"], None, "shop", "from -n"),
        ([], None, "from-context", "from the kubeconfig's context"),
        (["--kube-context", "other"], None, "of-the-other", "from the kubeconfig's context"),
        ([], "own", "own", "from the manifest"),
        (["-n", "own"], "own", "own", "from the manifest"),
    ],
)
def test_namespace_precedence(
    cli: Cli, api: FakeApi, arguments: list[str], in_manifest: str | None, expected: str, origin: str
) -> None:
    metadata = {"name": "db"} | ({"namespace": in_manifest} if in_manifest else {})
    text = yaml.safe_dump(secret({"a": b"1"}, metadata=metadata))
    result = cli("encrypt", "--key", "prod", *arguments, stdin=text)
    assert result.code == 0, result.stderr
    assert yaml.safe_load(result.text)["metadata"]["namespace"] == expected
    assert f"/namespaces/{expected}/" in api.requests[0].path
    assert f"scope Strict, namespace {expected} {origin}" in result.stderr


def test_another_namespace_than_the_manifests_is_refused(cli: Cli, api: FakeApi) -> None:
    result = cli("encrypt", "--key", "prod", "-n", "other", stdin=yaml.safe_dump(secret({"a": b"1"})))
    assert (result.code, result.stdout, api.requests) == (1, b"", [])
    assert "the manifest is for namespace shop, -n says other" in result.stderr
