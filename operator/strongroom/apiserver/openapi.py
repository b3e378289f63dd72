# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI v3 document: what `kubectl explain` shows, and what lets kubectl validate on the server.

Before kubectl sends a kind with server-side validation, it looks for a PATCH operation of that kind that takes
`fieldValidation`, and lists CustomResourceDefinitions if there is none, which ordinary users may not. So each kind has
a PATCH in here that is documentation only: the server answers 405.
"""

from typing import Any, Final

from strongroom import __version__
from strongroom.model.labels import CRYPTO_API_VERSION, CRYPTO_GROUP, KEYS_RESOURCE, VERSION
from strongroom.model.limits import MAX_CONTEXT_BYTES, MAX_CONTEXT_PAIRS, MAX_PLAINTEXT_BYTES, MAX_VALUES

_Schema = dict[str, Any]

_PATH: Final = f"/apis/{CRYPTO_API_VERSION}/namespaces/{{namespace}}/{KEYS_RESOURCE}"
_PREFIX: Final = f"dev.strongroom.crypto.{VERSION}."


def document() -> _Schema:
    """The whole document."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Strongroom crypto API", "version": __version__},
        "paths": {
            _PATH: {"get": _operation("list", "Key", answer="KeyList"), "parameters": [_in_path("namespace")]},
            f"{_PATH}/{{name}}": {
                "get": _operation("get", "Key", answer="Key"),
                "patch": _documentation_only("Key"),
                "parameters": [_in_path("namespace"), _in_path("name")],
            },
            f"{_PATH}/{{name}}/encrypt": _create_only("EncryptRequest"),
            f"{_PATH}/{{name}}/decrypt": _create_only("DecryptRequest"),
        },
        "components": {"schemas": {_PREFIX + kind: schema for kind, schema in _schemas().items()}},
    }


def _schemas() -> dict[str, _Schema]:
    blobs = "Encrypted values (base64), by data key of the Secret."
    values = (
        f"Values (base64), by data key of the Secret: 1 to {MAX_VALUES}, each at most {MAX_PLAINTEXT_BYTES} bytes "
        "after decoding."
    )
    return {
        "Key": _kind(
            "Key",
            "A CustomerMasterKey as seen from a namespace.",
            spec=_object("What the key is.", keySpec=_string("Kind of key material.")),
            status=_object(
                "What the key can do now.",
                keyId=_string("Identity of the key material, as encrypted values name it."),
                state=_string("Which operations the key allows."),
                currentVersion=_integer("Version that encrypts."),
                publicKey=_string("Public key of the version that encrypts (PEM); RSA keys only."),
                oaepHash=_string(
                    "Hash of RSA-OAEP and of its MGF1 for sealing with the public key: sha1 or sha256; RSA keys only."
                ),
            ),
        ),
        "KeyList": _kind(
            "KeyList",
            "All keys.",
            items={"type": "array", "items": {"$ref": f"#/components/schemas/{_PREFIX}Key"}},
        ),
        "EncryptRequest": _kind(
            "EncryptRequest",
            "Encrypts values for a namespace. The answer holds the result in status and no values.",
            spec=_request_spec("What to encrypt.", values=_map(values)),
            status=_object(
                "The result.",
                keyId=_string("Identity of the key that encrypted."),
                keyVersion=_integer("Version that encrypted."),
                encryptedData=_map(blobs),
            ),
        ),
        "DecryptRequest": _kind(
            "DecryptRequest",
            "Decrypts values of a namespace.",
            spec=_request_spec(
                "What to decrypt.",
                encryptedData=_map(blobs),
                recipientPublicKey=_string(
                    "RSA public key (PEM) that alone can open the answer; it then holds encryptedValues."
                ),
            ),
            status=_object(
                "The result.",
                keyVersions={"type": "array", "items": {"type": "integer"}, "description": "Versions that decrypted."},
                values=_map("Values (base64), by data key."),
                encryptedValues=_map("Values by data key, each a JWE (RSA-OAEP-256, A256GCM) for the recipient."),
            ),
        ),
    }


def _request_spec(description: str, **fields: _Schema) -> _Schema:
    return _object(
        description,
        scope=_string("Where the values are good: Strict (namespace and name), Namespace or Cluster."),
        name=_string("Name of the EncryptedSecret; required under scope Strict."),
        encryptionContext=_map(
            f"Additional authenticated data, not secret: at most {MAX_CONTEXT_PAIRS} pairs, {MAX_CONTEXT_BYTES} bytes."
        ),
        **fields,
    )


def _kind(kind: str, description: str, **fields: _Schema) -> _Schema:
    schema = _object(
        description,
        apiVersion=_string("Version of the API."),
        kind=_string("Kind of the object."),
        metadata={"type": "object", "description": "Standard metadata; only name and namespace are used."},
        **fields,
    )
    return schema | {"x-kubernetes-group-version-kind": [_group_version_kind(kind)]}


def _create_only(kind: str) -> _Schema:
    return {
        "post": _operation("create", kind, answer=kind, body=kind, parameters=("dryRun", "fieldValidation")),
        "patch": _documentation_only(kind),
        "parameters": [_in_path("namespace"), _in_path("name")],
    }


def _documentation_only(kind: str) -> _Schema:
    return _operation("patch", kind, answer=kind, parameters=("fieldValidation",)) | {
        "description": "Not served: keeps kubectl from listing CustomResourceDefinitions before it validates."
    }


def _operation(
    action: str, kind: str, *, answer: str, body: str | None = None, parameters: tuple[str, ...] = ()
) -> _Schema:
    operation: _Schema = {
        "operationId": f"{action}{kind}",
        "tags": [CRYPTO_GROUP],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _group_version_kind(kind),
        "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in parameters],
        "responses": {
            "201" if action == "create" else "200": {"description": "Done", "content": _content(answer)},
        },
    }
    if body:
        operation["requestBody"] = {"required": True, "content": _content(body)}
    return operation


def _content(kind: str) -> _Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{_PREFIX}{kind}"}}}


def _in_path(name: str) -> _Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _group_version_kind(kind: str) -> _Schema:
    return {"group": CRYPTO_GROUP, "version": VERSION, "kind": kind}


def _object(description: str, **fields: _Schema) -> _Schema:
    return {"type": "object", "description": description, "properties": fields}


def _map(description: str) -> _Schema:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


def _string(description: str) -> _Schema:
    return {"type": "string", "description": description}


def _integer(description: str) -> _Schema:
    return {"type": "integer", "format": "int64", "description": description}
