# SPDX-License-Identifier: Apache-2.0
"""The crypto API, typed: keys as one namespace sees them, encrypt and decrypt."""

from collections.abc import Mapping
from typing import Any

from strongroom.cli import base64text, encryptedsecret
from strongroom.cli.cluster import Cluster
from strongroom.cli.encryptedsecret import Sealing
from strongroom.errors import Reason, StrongroomError
from strongroom.model.labels import CRYPTO_API_VERSION, CRYPTO_GROUP, KEYS_RESOURCE

DISCOVERY_PATH = f"/apis/{CRYPTO_GROUP}"
_PATH = f"/apis/{CRYPTO_API_VERSION}"


def list_keys(cluster: Cluster, namespace: str) -> list[Mapping[str, Any]]:
    """The `Key` objects."""
    items = cluster.get(_path(namespace)).get("items")
    return list(items) if isinstance(items, list) else []


def get_key(cluster: Cluster, namespace: str, name: str) -> Mapping[str, Any]:
    """One `Key` object."""
    return cluster.get(_path(namespace, name))


def encrypt(cluster: Cluster, sealing: Sealing, *, name: str, values: Mapping[str, bytes]) -> dict[str, str]:
    """Encrypt all values of one object in one request; returns data key → blob, checked against the values."""
    encoded = {key: base64text.encode(value) for key, value in values.items()}
    clear = {value.decode() for value in values.values() if _is_text(value)}
    answer = cluster.post(
        _path(sealing.namespace, sealing.key_name, "encrypt"),
        _request("EncryptRequest", sealing, name, {"values": encoded}),
        confidential={*encoded.values(), *clear},
    )
    encrypted = _strings(answer, "encryptedData")
    encryptedsecret.check_encrypted(values, encrypted)
    return {key: encrypted[key] for key in values}


def decrypt(
    cluster: Cluster, sealing: Sealing, *, name: str, encrypted: Mapping[str, str], sizes: Mapping[str, range]
) -> dict[str, bytes]:
    """Decrypt values of one object in one request. `sizes` are those that the blobs allow; an answer of another size is
    an error."""
    answer = cluster.post(
        _path(sealing.namespace, sealing.key_name, "decrypt"),
        _request("DecryptRequest", sealing, name, {"encryptedData": dict(encrypted)}),
        confidential=(),
    )
    values: dict[str, bytes] = {}
    for key, text in _strings(answer, "values").items():
        try:
            values[key] = base64text.decode(text)
        except ValueError:
            raise _unexpected(f"the value of data key {key} is not base64") from None
    if values.keys() != sizes.keys() or any(len(value) not in sizes[key] for key, value in values.items()):
        raise _unexpected("other data keys or sizes than were sent")
    return {key: values[key] for key in encrypted}


def _path(namespace: str, *parts: str) -> str:
    """Names are checked before they come here."""
    return "/".join((_PATH, "namespaces", namespace, KEYS_RESOURCE, *parts))


def _request(kind: str, sealing: Sealing, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"scope": sealing.scope.value, "name": name, "encryptionContext": sealing.context.as_dict(), **payload}
    return {"apiVersion": CRYPTO_API_VERSION, "kind": kind, "spec": spec}


def _strings(answer: Mapping[str, Any], field: str) -> dict[str, str]:
    status = answer.get("status")
    found = status.get(field) if isinstance(status, dict) else None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _unexpected(f"status.{field} is missing")
    return found


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unexpected(what: str) -> StrongroomError:
    return StrongroomError(
        Reason.INTERNAL,
        f"the server's answer is not as expected: {what}",
        hint="Compare the versions of client and server: strongroom version",
    )
