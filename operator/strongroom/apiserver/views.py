# SPDX-License-Identifier: Apache-2.0
"""How keys are shown: as objects, as a list, and as the table that `kubectl get keys` prints."""

from enum import Enum, unique
from typing import Any, Final

from strongroom.apiserver.status import HttpRefusal, InvalidField
from strongroom.model.labels import CRYPTO_API_VERSION
from strongroom.model.masterkey import MasterKey

_META_GROUP: Final = "meta.k8s.io"
_COLUMNS: Final = (
    ("Name", "string", "name", "Name of the CustomerMasterKey."),
    ("State", "string", "", "Which operations the key allows."),
    ("Spec", "string", "", "Kind of key material."),
    ("Version", "integer", "", "Version that encrypts."),
    ("Key ID", "string", "", "Identity of the key material, as encrypted values name it."),
)


@unique
class Form(Enum):
    """What the client wants to be answered with."""

    OBJECT = "object"
    TABLE = "table"


def form(accept: str) -> Form:
    """The first form in an Accept header that can be given. Raises HttpRefusal (406)."""
    for choice in accept.split(",") if accept.strip() else ["*/*"]:
        media_type, *rest = (part.strip() for part in choice.split(";"))
        if media_type not in ("application/json", "application/*", "*/*"):
            continue
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        match parameters.get("as"):
            case None:
                return Form.OBJECT
            case "Table" if parameters.get("g") == _META_GROUP and parameters.get("v") == "v1":
                return Form.TABLE
    raise HttpRefusal(406, "only application/json is served, as an object or as a meta.k8s.io/v1 Table")


def key(master_key: MasterKey, namespace: str) -> dict[str, Any]:
    """One key as seen from a namespace."""
    status: dict[str, Any] = {"state": master_key.state.value}
    if master_key.key_id is not None:
        status["keyId"] = str(master_key.key_id)
    if master_key.primary is not None:
        status["currentVersion"] = master_key.primary
    if master_key.public_key:
        status["publicKey"] = master_key.public_key
        status["oaepHash"] = master_key.oaep_hash
    return {
        "apiVersion": CRYPTO_API_VERSION,
        "kind": "Key",
        "metadata": {"name": master_key.name, "namespace": namespace},
        "spec": {"keySpec": master_key.key_spec},
        "status": status,
    }


def key_list(master_keys: list[MasterKey], namespace: str) -> dict[str, Any]:
    """All keys as seen from a namespace."""
    items = [key(master_key, namespace) for master_key in master_keys]
    return {"apiVersion": CRYPTO_API_VERSION, "kind": "KeyList", "metadata": {}, "items": items}


def table(master_keys: list[MasterKey], namespace: str, *, include_object: str) -> dict[str, Any]:
    """The same as rows. `include_object` is Kubernetes' `includeObject`: None, Metadata (also if empty) or Object."""
    return {
        "apiVersion": f"{_META_GROUP}/v1",
        "kind": "Table",
        "metadata": {},
        "columnDefinitions": [
            {"name": name, "type": kind, "format": text_format, "description": description, "priority": 0}
            for name, kind, text_format, description in _COLUMNS
        ],
        "rows": [_row(key(master_key, namespace), include_object) for master_key in master_keys],
    }


def _row(shown: dict[str, Any], include_object: str) -> dict[str, Any]:
    status = shown["status"]
    row: dict[str, Any] = {
        "cells": [
            shown["metadata"]["name"],
            status["state"],
            shown["spec"]["keySpec"],
            status.get("currentVersion"),
            status.get("keyId"),
        ]
    }
    match include_object:
        case "None":
            pass
        case "Object":
            row["object"] = shown
        case "" | "Metadata":
            row["object"] = {
                "apiVersion": f"{_META_GROUP}/v1",
                "kind": "PartialObjectMetadata",
                "metadata": shown["metadata"],
            }
        case _:
            raise InvalidField("includeObject", "must be None, Metadata or Object", reason="FieldValueNotSupported")
    return row
