# SPDX-License-Identifier: Apache-2.0
"""Every route: what it answers, and what it asks for on the way."""

import base64
import io
import json
from typing import Any

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.model.binding import Purpose, Scope
from strongroom.model.limits import MAX_REQUEST_BYTES
from strongroom.model.principal import Permission, Principal
from tests.apiserver.harness import (
    GROUP_VERSION,
    KEY_ID,
    PUBLIC_KEY,
    Client,
    Harness,
    decrypt_request,
    encrypt_request,
    rsa_key,
)

KEYS = f"{GROUP_VERSION}/namespaces/shop/keys"
ENCRYPT = f"{KEYS}/prod/encrypt"
DECRYPT = f"{KEYS}/prod/decrypt"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
CANARY = "canary-plaintext-that-must-not-show"


async def test_key_is_shown_as_seen_from_the_namespace(client: Client) -> None:
    answer = await client("GET", f"{KEYS}/prod")

    assert answer.status == 200
    assert answer.json == {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "Key",
        "metadata": {"name": "prod", "namespace": "shop"},
        "spec": {"keySpec": "AES_256"},
        "status": {"keyId": str(KEY_ID), "state": "Enabled", "currentVersion": 3},
    }


async def test_an_rsa_key_shows_what_it_takes_to_seal(api: Harness, client: Client) -> None:
    api.keys.keys["sealing"] = rsa_key("sealing")

    answer = await client("GET", f"{KEYS}/sealing")

    assert answer.json["spec"] == {"keySpec": "RSA_3072"}
    assert answer.json["status"] == {
        "keyId": str(KEY_ID), "state": "Enabled", "currentVersion": 1, "publicKey": PUBLIC_KEY, "oaepHash": "sha1",
    }  # fmt: skip
    document = (await client("GET", f"/openapi/v3/{GROUP_VERSION.strip('/')}")).json
    documented = document["components"]["schemas"]["dev.strongroom.crypto.v1alpha1.Key"]["properties"]["status"]
    assert answer.json["status"].keys() == documented["properties"].keys()


async def test_list_is_sorted_and_a_key_without_material_has_no_id(client: Client) -> None:
    answer = await client("GET", KEYS)

    assert answer.json["kind"] == "KeyList"
    assert [item["metadata"]["name"] for item in answer.json["items"]] == ["new", "prod"]
    assert answer.json["items"][0]["status"] == {"state": "Creating"}


@pytest.mark.parametrize(
    ("include", "object_kind"),
    [
        pytest.param("", "PartialObjectMetadata", id="default"),
        pytest.param("?includeObject=Metadata", "PartialObjectMetadata", id="metadata"),
        pytest.param("?includeObject=Object", "Key", id="object"),
        pytest.param("?includeObject=None", None, id="none"),
    ],
)
async def test_table_for_kubectl_get(client: Client, include: str, object_kind: str | None) -> None:
    listed = (await client("GET", KEYS + include, headers=[("Accept", TABLE)])).json
    one = (await client("GET", f"{KEYS}/prod{include}", headers=[("Accept", TABLE)])).json

    assert [column["name"] for column in listed["columnDefinitions"]] == ["Name", "State", "Spec", "Version", "Key ID"]
    assert listed["rows"][0]["cells"] == ["new", "Creating", "AES_256", None, None]
    assert one["rows"][0]["cells"] == ["prod", "Enabled", "AES_256", 3, str(KEY_ID)]
    assert one["rows"][0].get("object", {}).get("kind") == object_kind


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        pytest.param(KEYS, "application/json", 200, id="json"),
        pytest.param(KEYS, "application/vnd.kubernetes.protobuf,application/json", 200, id="second-choice"),
        pytest.param(KEYS, "*/*", 200, id="anything"),
        pytest.param(KEYS, "", 200, id="empty"),
        pytest.param(KEYS, "application/yaml", 406, id="yaml"),
        pytest.param(KEYS, "application/json;as=Table;v=v9;g=meta.k8s.io", 406, id="unknown-table"),
        pytest.param(KEYS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 406, id="metadata"),
        pytest.param(f"{KEYS}?includeObject=All", TABLE, 400, id="unknown-include"),
        pytest.param(f"{KEYS}?watch=true", "application/json", 405, id="watch"),
        pytest.param(f"{KEYS}?labelSelector=a", "application/json", 400, id="label-selector"),
        pytest.param(f"{KEYS}?fieldSelector=metadata.name%3Dx", "application/json", 400, id="field-selector"),
        pytest.param(f"{GROUP_VERSION}/keys", "application/json", 405, id="all-namespaces"),
    ],
)
async def test_what_a_get_can_ask_for(client: Client, path: str, accept: str, status: int) -> None:
    assert (await client("GET", path, headers=[("Accept", accept)])).status == status


async def test_reading_is_authorised_for_the_caller(api: Harness, client: Client) -> None:
    await client("GET", f"{KEYS}/prod")
    await client("GET", KEYS)

    alice = Principal("alice", ("system:authenticated",))
    assert api.authorizer.questions == [(alice, "get", "", "prod", "shop"), (alice, "list", "", "", "shop")]


@pytest.mark.parametrize("path", [KEYS, f"{KEYS}/prod"])
async def test_reading_without_permission_is_denied(api: Harness, client: Client, path: str) -> None:
    api.authorizer.allowed = False

    answer = await client("GET", path)

    assert (answer.status, answer.json["reason"]) == (403, "AccessDenied")
    assert "alice may not" in answer.json["message"]


async def test_encrypt_answers_with_blobs_and_without_values(api: Harness, client: Client) -> None:
    context = {"team": "payments"}
    body = encrypt_request(encryptionContext=context) | {"metadata": {"name": "x", "namespace": "shop"}}

    answer = await client("POST", ENCRYPT, body=body, headers=[("User-Agent", "test"), ("Audit-ID", "a-1")])

    assert answer.status == 201
    assert answer.json == {
        "apiVersion": "crypto.strongroom.dev/v1alpha1",
        "kind": "EncryptRequest",
        "metadata": {"name": "prod", "namespace": "shop"},
        "spec": {"scope": "Strict", "name": "db", "encryptionContext": context},
        "status": {
            "keyId": str(KEY_ID),
            "keyVersion": 3,
            "encryptedData": {"password": "U1Ix" + base64.b64encode(b"s3cret").decode()},
        },
    }
    assert answer.headers["Cache-Control"] == "no-store"
    [(_, caller, key_name, [(binding, where)], dry_run)] = api.service.asked
    assert (key_name, dry_run, where) == ("prod", False, "spec.values[password]")
    assert (caller.principal.username, caller.permission, caller.namespace) == ("alice", Permission.ENCRYPT, "shop")
    assert (caller.source.via, caller.source.user_agent, caller.source.audit_id) == ("API", "test", "a-1")
    assert (binding.purpose, binding.scope, binding.namespace) == (Purpose.SECRET, Scope.STRICT, "shop")
    assert (binding.name, binding.data_key, binding.context.as_dict()) == ("db", "password", context)
    assert api.service.plaintexts == [b"s3cret"]


async def test_decrypt_answers_with_values_and_versions(api: Harness, client: Client) -> None:
    answer = await client("POST", DECRYPT, body=decrypt_request())

    assert answer.status == 201
    assert answer.json["spec"] == {"scope": "Strict", "name": "db"}
    assert answer.json["status"] == {
        "keyVersions": [2, 3],
        "values": {"password": base64.b64encode(b"s3cret").decode()},
    }
    assert api.service.asked[0][1].permission is Permission.DECRYPT


async def test_plaintexts_are_wiped_after_use(api: Harness, client: Client) -> None:
    await client("POST", ENCRYPT, body=encrypt_request())
    await client("POST", DECRYPT, body=decrypt_request())
    assert [plaintext.reveal() for plaintext in [*api.service.items, *api.service.released]] == [bytes(6), bytes(6)]

    api.service.error = StrongroomError(Reason.HSM_UNAVAILABLE, "away")
    await client("POST", ENCRYPT, body=encrypt_request())
    assert [plaintext.reveal() for plaintext in api.service.items] == [bytes(6)]


@pytest.mark.parametrize(("path", "body"), [(ENCRYPT, encrypt_request()), (DECRYPT, decrypt_request())])
async def test_dry_run_goes_through_and_has_no_status(
    api: Harness, client: Client, path: str, body: dict[str, Any]
) -> None:
    answer = await client("POST", f"{path}?dryRun=All", body=body)

    assert answer.status == 201
    assert "status" not in answer.json
    assert api.service.asked[0][4] is True


@pytest.mark.parametrize(
    ("scope", "name", "place"),
    [
        pytest.param("Strict", "db", ("shop", "db"), id="strict"),
        pytest.param("Namespace", None, ("shop", ""), id="namespace-without-name"),
        pytest.param("Namespace", "db", ("shop", ""), id="namespace-with-name"),
        pytest.param("Cluster", None, ("", ""), id="cluster"),
    ],
)
async def test_scopes(api: Harness, client: Client, scope: str, name: str | None, place: tuple[str, str]) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request(scope=scope, name=name))

    assert answer.status == 201
    assert api.service.asked[0][3][0][0].place == place


@pytest.mark.parametrize("data_key", ["a", "A.b-c_9", ".hidden", ".x.", "x" * 253])
async def test_data_keys_that_kubernetes_allows(client: Client, data_key: str) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request(values={data_key: ""}))

    assert answer.json["status"]["encryptedData"] == {data_key: "U1Ix"}


def _body(text: str) -> bytes:
    return text.encode()


_VALID = json.dumps(encrypt_request())
_BIG_VALUE = base64.b64encode(bytes(4097)).decode()

BAD_BODIES = [
    pytest.param(b"", "JSON", id="empty"),
    pytest.param(b"{", "JSON", id="cut-off"),
    pytest.param(b"\xff\xfe{\x00}\x00", "JSON", id="utf-16"),
    pytest.param(b"\xef\xbb\xbf" + _body(_VALID), "JSON", id="byte-order-mark"),
    pytest.param(_body(_VALID) + b"{}", "JSON", id="two-documents"),
    pytest.param(b"[" * 500_000, "JSON", id="deep-nesting"),
    pytest.param(b'{"a":' * 100_000, "JSON", id="deep-objects"),
    pytest.param(b'{"apiVersion": NaN}', "JSON", id="nan"),
    pytest.param(b'{"apiVersion": -Infinity}', "JSON", id="infinity"),
    pytest.param(b"1" * 10_000, "JSON", id="huge-number"),
    pytest.param(b"[]", "body", id="array"),
    pytest.param(b'"text"', "body", id="string"),
    pytest.param(b"null", "body", id="null"),
    pytest.param(_body(_VALID.replace('"scope"', '"scope": "Cluster", "scope"')), "scope: is given twice", id="twice"),
    pytest.param(_body(_VALID.replace('"password"', '"password": "", "password"')), "password", id="value-twice"),
]


@pytest.mark.parametrize(("raw", "says"), BAD_BODIES)
async def test_bodies_that_are_no_request(api: Harness, client: Client, raw: bytes, says: str) -> None:
    answer = await client("POST", ENCRYPT, raw=raw)

    assert (answer.status, answer.json["reason"]) == (400, "InvalidRequest")
    assert says in answer.json["message"]
    assert api.service.asked == []


BAD_FIELDS = [
    pytest.param({"apiVersion": "v1"}, "apiVersion", id="api-version"),
    pytest.param({"apiVersion": 1}, "apiVersion", id="api-version-type"),
    pytest.param({"kind": "DecryptRequest"}, "kind", id="kind"),
    pytest.param({"kind": None}, "kind", id="kind-null"),
    pytest.param({"metadata": []}, "metadata", id="metadata-type"),
    pytest.param({"metadata": {"namespace": "other"}}, "metadata.namespace", id="other-namespace"),
    pytest.param({"spec": None}, "spec", id="spec-null"),
    pytest.param({"spec": {}}, "spec", id="spec-empty"),
]

BAD_SPECS = [
    pytest.param({"scope": "strict"}, "spec.scope", id="scope-case"),
    pytest.param({"scope": CANARY}, "spec.scope", id="scope-unknown"),
    pytest.param({"scope": 1}, "spec.scope", id="scope-type"),
    pytest.param({"scope": None}, "spec", id="scope-missing"),
    pytest.param({"name": None}, "spec.name", id="strict-without-name"),
    pytest.param({"name": ""}, "spec.name", id="strict-with-empty-name"),
    pytest.param({"name": "Upper"}, "spec.name", id="name-case"),
    pytest.param({"name": "a/b"}, "spec.name", id="name-slash"),
    pytest.param({"name": "a\n"}, "spec.name", id="name-newline"),
    pytest.param({"name": "a" * 254}, "spec.name", id="name-length"),
    pytest.param({"values": {}}, "spec.values", id="no-values"),
    pytest.param({"values": {f"k{n}": "" for n in range(65)}}, "spec.values", id="65-values"),
    pytest.param({"values": [CANARY]}, "spec.values", id="values-type"),
    pytest.param({"values": {"a": 5}}, "spec.values", id="value-number"),
    pytest.param({"values": {"a": None}}, "spec.values", id="value-null"),
    pytest.param({"values": {"a": CANARY}}, "spec.values[a]", id="not-base64"),
    pytest.param({"values": {"a": "YQ"}}, "spec.values[a]", id="no-padding"),
    pytest.param({"values": {"a": "YQ==="}}, "spec.values[a]", id="much-padding"),
    pytest.param({"values": {"a": "YR=="}}, "spec.values[a]", id="stray-bits"),
    pytest.param({"values": {"a": "Y Q=="}}, "spec.values[a]", id="space"),
    pytest.param({"values": {"a": "YQ==\n"}}, "spec.values[a]", id="newline"),
    pytest.param({"values": {"a": "_-8="}}, "spec.values[a]", id="url-alphabet"),
    pytest.param({"values": {"a": "é"}}, "spec.values[a]", id="not-ascii"),
    pytest.param({"values": {"": ""}}, "spec.values[]", id="data-key-empty"),
    pytest.param({"values": {".": ""}}, "spec.values[.]", id="data-key-dot"),
    pytest.param({"values": {"..x": ""}}, "spec.values[..x]", id="data-key-dots"),
    pytest.param({"values": {"a/b": ""}}, "spec.values[a/b]", id="data-key-slash"),
    pytest.param({"values": {"x" * 254: ""}}, "spec.values[", id="data-key-length"),
    pytest.param({"encryptionContext": {"a": 1}}, "spec.encryptionContext", id="context-type"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_FIELDS)
async def test_top_fields_that_are_wrong(api: Harness, client: Client, changes: dict[str, Any], field: str) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request() | changes)

    assert (answer.status, answer.json["reason"]) == (400, "InvalidRequest")
    assert answer.json["details"]["causes"][0]["field"] == field
    assert api.service.asked == []


@pytest.mark.parametrize(("changes", "field"), BAD_SPECS)
async def test_spec_fields_that_are_wrong(api: Harness, client: Client, changes: dict[str, Any], field: str) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request(**changes))

    assert (answer.status, answer.json["reason"]) == (400, "InvalidRequest")
    assert answer.json["details"]["causes"][0]["field"].startswith(field)
    assert CANARY not in answer.body.decode()
    assert api.service.asked == []


async def test_encryption_context_keeps_its_own_reason(client: Client) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request(encryptionContext={"": "x"}))

    assert (answer.status, answer.json["reason"]) == (400, "InvalidEncryptionContext")


async def test_64_values_pass(client: Client) -> None:
    values = {f"k{n}": base64.b64encode(bytes(4096)).decode() for n in range(64)}

    answer = await client("POST", ENCRYPT, body=encrypt_request(values=values))

    assert list(answer.json["status"]["encryptedData"]) == list(values)


@pytest.mark.parametrize(
    ("query", "status", "warnings"),
    [
        pytest.param("", 201, True, id="default-warns"),
        pytest.param("?fieldValidation=Warn", 201, True, id="warn"),
        pytest.param("?fieldValidation=Ignore", 201, False, id="ignore"),
        pytest.param("?fieldValidation=Strict", 400, False, id="strict"),
    ],
)
@pytest.mark.parametrize("place", ["top", "spec"])
async def test_unknown_fields(client: Client, query: str, status: int, warnings: bool, place: str) -> None:
    body = encrypt_request(tpyo=CANARY) if place == "spec" else encrypt_request() | {"tpyo": CANARY}
    field = "spec.tpyo" if place == "spec" else "tpyo"

    answer = await client("POST", ENCRYPT + query, body=body)

    assert answer.status == status
    assert answer.headers.get("Warning") == (f'299 - "unknown field \\"{field}\\""' if warnings else None)
    assert CANARY not in answer.body.decode()
    if status == 400:
        assert answer.json["details"]["causes"] == [
            {"reason": "FieldValueInvalid", "message": "unknown field", "field": field},
            {"reason": "Remedy", "message": "Remove it, or correct its name", "field": ""},
        ]


async def test_unknown_field_names_cannot_break_the_header(client: Client) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request() | {'a"\r\nSet-Cookie: x\u2028': 1})

    assert answer.status == 201
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("query", ["fieldValidation=strict", "dryRun=yes", "dryRun=All&dryRun=None", "dryRun="])
async def test_query_values_that_are_wrong(client: Client, query: str) -> None:
    answer = await client("POST", f"{ENCRYPT}?{query}", body=encrypt_request())

    assert answer.status == 400
    assert answer.json["details"]["causes"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("content_type", ["application/yaml", "text/plain", "application/vnd.kubernetes.protobuf"])
async def test_only_json_is_understood(client: Client, content_type: str) -> None:
    answer = await client("POST", ENCRYPT, body=encrypt_request(), headers=[("Content-Type", content_type)])

    assert (answer.status, answer.json["reason"]) == (415, "UnsupportedMediaType")


async def test_charset_of_json_is_tolerated(client: Client) -> None:
    headers = [("Content-Type", "application/json; charset=utf-8")]
    assert (await client("POST", ENCRYPT, body=encrypt_request(), headers=headers)).status == 201


async def test_compressed_bodies_are_refused(client: Client) -> None:
    answer = await client("POST", ENCRYPT, raw=b"x", headers=[("Content-Encoding", "gzip")])

    assert answer.status == 415


async def _chunks() -> object:
    for _ in range(MAX_REQUEST_BYTES // 65536 + 1):
        yield b" " * 65536


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_oversized_bodies_are_refused(api: Harness, client: Client, declared: bool) -> None:
    raw = io.BytesIO(b" " * (MAX_REQUEST_BYTES + 1)) if declared else _chunks()

    answer = await client("POST", ENCRYPT, raw=raw)

    assert (answer.status, answer.json["reason"]) == (413, "RequestEntityTooLarge")
    assert api.service.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", ENCRYPT, 405, id="get-encrypt"),
        pytest.param("PATCH", ENCRYPT, 405, id="patch-is-documentation-only"),
        pytest.param("PATCH", f"{KEYS}/prod", 405, id="patch-key"),
        pytest.param("DELETE", f"{KEYS}/prod", 405, id="delete"),
        pytest.param("PUT", f"{KEYS}/prod", 405, id="put"),
        pytest.param("POST", KEYS, 405, id="create-key"),
        pytest.param("POST", f"{GROUP_VERSION}/keys/prod/encrypt", 404, id="encrypt-without-namespace"),
        pytest.param("POST", f"{KEYS}/prod/reencrypt", 404, id="unknown-subresource"),
        pytest.param("POST", f"{KEYS}/prod/encrypt/", 404, id="trailing-slash"),
        pytest.param("POST", f"{KEYS}//encrypt", 404, id="empty-name"),
        pytest.param("GET", "/", 404, id="root"),
        pytest.param("GET", "/metrics", 404, id="metrics"),
        pytest.param("GET", "/apis/apps/v1", 404, id="other-group"),
        pytest.param("GET", "/openapi/v2", 404, id="openapi-v2"),
        pytest.param("POST", f"{KEYS}/a%2Fb/encrypt", 400, id="encoded-slash"),
        pytest.param("POST", f"{KEYS}/%2e%2e/encrypt", 400, id="encoded-dots"),
        pytest.param("POST", f"{KEYS}/prod%00/encrypt", 400, id="nul"),
        pytest.param("POST", f"{KEYS}/prod%0a/encrypt", 400, id="newline"),
        pytest.param("POST", f"{KEYS}/PROD/encrypt", 400, id="case"),
        pytest.param("POST", f"{KEYS}/{'a' * 64}/encrypt", 400, id="long-name"),
        pytest.param("POST", f"{GROUP_VERSION}/namespaces/a.b/keys/prod/encrypt", 400, id="namespace-dot"),
        pytest.param("POST", f"{GROUP_VERSION}/namespaces/a%2F..%2Fb/keys/prod/encrypt", 400, id="namespace-path"),
        pytest.param("POST", f"{GROUP_VERSION}/namespaces/shop%20/keys/prod/encrypt", 400, id="namespace-space"),
        pytest.param("POST", f"/apis/x/../crypto.strongroom.dev/v1alpha1{ENCRYPT}", 404, id="dot-segments"),
    ],
)
async def test_other_paths_and_methods(api: Harness, client: Client, method: str, path: str, status: int) -> None:
    answer = await client(method, path, body=encrypt_request() if method == "POST" else None)

    assert answer.status == status
    assert (answer.json["kind"], answer.json["apiVersion"], answer.json["code"]) == ("Status", "v1", status)
    assert status != 405 or answer.headers["Allow"]
    assert api.service.asked == []


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.http_status >= 400])
async def test_every_refusal_is_a_status(api: Harness, client: Client, reason: Reason) -> None:
    api.service.error = StrongroomError(reason, "what and where", hint="What to do")

    answer = await client("POST", ENCRYPT, body=encrypt_request())

    retried = reason.http_status in (429, 503)
    assert answer.status == reason.http_status
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers.get("Retry-After") == ("1" if retried else None)
    causes = [{"reason": "Remedy", "message": "What to do", "field": ""}]
    details = {"group": "crypto.strongroom.dev", "kind": "keys", "name": "prod", "causes": causes}
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "what and where. What to do",
        "reason": reason.value,
        "details": details | ({"retryAfterSeconds": 1} if retried else {}),
        "code": reason.http_status,
    }


async def test_a_refusal_without_a_remedy_names_none(api: Harness, client: Client) -> None:
    api.service.error = StrongroomError(Reason.KEY_ARCHIVED, "what and where")

    answer = await client("POST", ENCRYPT, body=encrypt_request())

    assert (answer.json["message"], "causes" in answer.json["details"]) == ("what and where", False)


async def test_unexpected_exceptions_show_nothing(
    api: Harness, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    api.service.error = RuntimeError(CANARY)

    answer = await client("POST", ENCRYPT, body=encrypt_request())

    assert (answer.status, answer.json["reason"]) == (500, "Internal")
    assert CANARY not in answer.body.decode()
    assert CANARY not in caplog.text
    assert "RuntimeError" in caplog.text


async def test_unknown_key(client: Client) -> None:
    answer = await client("GET", f"{KEYS}/nope")

    assert (answer.status, answer.json["reason"], answer.json["details"]["name"]) == (404, "KeyNotFound", "nope")


async def test_requests_are_counted_by_verb_and_code(api: Harness, client: Client) -> None:
    await client("GET", KEYS)
    await client("POST", ENCRYPT, body=encrypt_request())
    await client("POST", DECRYPT, body={})
    await client("GET", "/nowhere/at/all")

    assert api.requests == [("list", 200), ("encrypt", 201), ("decrypt", 400), ("other", 404)]
