# SPDX-License-Identifier: Apache-2.0
"""Discovery and OpenAPI: what kube-apiserver and kubectl read."""

from typing import Any

from tests.apiserver.harness import GROUP_VERSION, Client


async def test_group_and_resources(client: Client) -> None:
    groups = (await client("GET", "/apis")).json
    group = (await client("GET", "/apis/crypto.strongroom.dev")).json
    resources = (await client("GET", GROUP_VERSION)).json

    assert (groups["kind"], groups["groups"]) == ("APIGroupList", [group])
    assert group["preferredVersion"] == {"groupVersion": "crypto.strongroom.dev/v1alpha1", "version": "v1alpha1"}
    assert resources["kind"] == "APIResourceList"
    assert {item["name"]: (item["kind"], item["verbs"]) for item in resources["resources"]} == {
        "keys": ("Key", ["get", "list"]),
        "keys/encrypt": ("EncryptRequest", ["create"]),
        "keys/decrypt": ("DecryptRequest", ["create"]),
    }
    assert all(item["namespaced"] for item in resources["resources"])


async def test_aggregated_discovery_is_answered_plainly(client: Client) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

    assert (await client("GET", "/apis", headers=[("Accept", accept)])).json["kind"] == "APIGroupList"


async def test_openapi_index_leads_to_the_document(client: Client) -> None:
    index = (await client("GET", "/openapi/v3")).json
    address = index["paths"]["apis/crypto.strongroom.dev/v1alpha1"]["serverRelativeURL"]

    document = (await client("GET", address)).json

    assert document["openapi"].startswith("3.0")
    kinds = {
        gvk["kind"] for schema in document["components"]["schemas"].values()
        for gvk in schema["x-kubernetes-group-version-kind"]
    }  # fmt: skip
    assert kinds == {"Key", "KeyList", "EncryptRequest", "DecryptRequest"}


async def test_every_reference_of_the_document_resolves(client: Client) -> None:
    document = (await client("GET", f"/openapi/v3{GROUP_VERSION}")).json

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    found = references(document)
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


async def test_each_kind_has_the_patch_that_kubectl_looks_for_and_nobody_serves(client: Client) -> None:
    document = (await client("GET", f"/openapi/v3{GROUP_VERSION}")).json
    patches = {path: item["patch"] for path, item in document["paths"].items() if "patch" in item}

    assert {patch["x-kubernetes-group-version-kind"]["kind"] for patch in patches.values()} == {
        "Key",
        "EncryptRequest",
        "DecryptRequest",
    }
    for path, patch in patches.items():
        assert [parameter["name"] for parameter in patch["parameters"]] == ["fieldValidation"]
        assert (await client("PATCH", path.format(namespace="shop", name="prod"))).status == 405
