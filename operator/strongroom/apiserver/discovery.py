# SPDX-License-Identifier: Apache-2.0
"""What this API serves, as Kubernetes' discovery and OpenAPI documents. Fixed: depends on no token, leader or key."""

import hashlib
import json
from typing import Any, Final

from aiohttp import web

from strongroom.apiserver import openapi
from strongroom.model.labels import CRYPTO_API_VERSION, CRYPTO_GROUP, KEYS_RESOURCE, VERSION

_GROUP: Final[dict[str, Any]] = {
    "kind": "APIGroup",
    "apiVersion": "v1",
    "name": CRYPTO_GROUP,
    "versions": [{"groupVersion": CRYPTO_API_VERSION, "version": VERSION}],
    "preferredVersion": {"groupVersion": CRYPTO_API_VERSION, "version": VERSION},
}


def routes() -> list[web.RouteDef]:
    """The discovery documents, for kube-apiserver, kubectl and other clients."""
    schema = openapi.document()
    # kube-apiserver fetches the document again when the hash in its address changes.
    address = f"/openapi/v3/apis/{CRYPTO_API_VERSION}"
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()
    index = {"paths": {f"apis/{CRYPTO_API_VERSION}": {"serverRelativeURL": f"{address}?hash={digest}"}}}
    documents: dict[str, dict[str, Any]] = {
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]},
        f"/apis/{CRYPTO_GROUP}": _GROUP,
        f"/apis/{CRYPTO_API_VERSION}": _resource_list(),
        "/openapi/v3": index,
        address: schema,
    }
    return [_serve(path, document) for path, document in documents.items()]


def _resource_list() -> dict[str, Any]:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": CRYPTO_API_VERSION,
        "resources": [
            _resource(KEYS_RESOURCE, "Key", "get", "list") | {"singularName": "key"},
            _resource(f"{KEYS_RESOURCE}/decrypt", "DecryptRequest", "create"),
            _resource(f"{KEYS_RESOURCE}/encrypt", "EncryptRequest", "create"),
        ],
    }


def _resource(name: str, kind: str, *verbs: str) -> dict[str, Any]:
    return {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": list(verbs)}


def _serve(path: str, document: dict[str, Any]) -> web.RouteDef:
    body = json.dumps(document).encode()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return web.get(path, answer)
