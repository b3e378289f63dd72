# SPDX-License-Identifier: Apache-2.0
"""The examples are what the real API server accepts, and nothing in the repository is a secret in plain text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.envelope import format as envelope
from testbed import REPOSITORY
from testbed.kubectl import Kubectl, KubectlError
from testbed.operator import OperatorProcess

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
ENCRYPTED = [path for path in EXAMPLES if path.name.startswith("encryptedsecret-")]

_NOT_SOURCE = {"build", "dist", "__pycache__"}
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}")
_SECRET = re.compile(r"^\s*kind:\s*[\"']?Secret[\"']?\s*$", re.MULTILINE)


@pytest.fixture(scope="module")
def shop(control_plane: Any) -> Iterator[Kubectl]:
    """kubectl as administrator of a cluster that has the examples' namespace."""
    control_plane.kubectl("create", "namespace", "shop")
    yield control_plane.kubectl
    control_plane.kubectl("delete", "namespace", "shop", "--wait=false")


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def sources() -> Iterator[Path]:
    """Every file of the repository, without what is made in it."""
    below = [path for path in REPOSITORY.iterdir() if path.name[0] != "." or path.name in (".ci", ".github")]
    for top in below:
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and not _NOT_SOURCE & set(path.parts):
                yield path


def secrets_with_values(tree: Any) -> Iterator[str]:
    """Metadata of Secrets in a parsed document, however deep, that hold values."""
    if isinstance(tree, list):
        for item in tree:
            yield from secrets_with_values(item)
    elif isinstance(tree, dict):
        if tree.get("kind") == "Secret" and (tree.get("data") or tree.get("stringData")):
            yield str(tree.get("metadata") or "unnamed")
        for value in tree.values():
            yield from secrets_with_values(value)


def test_there_is_an_example_of_every_common_kind() -> None:
    types = {document["spec"]["template"]["type"] for path in ENCRYPTED for document in documents(path)}
    common = {f"kubernetes.io/{kind}" for kind in ("tls", "dockerconfigjson", "ssh-auth", "basic-auth")}
    assert types == common | {"Opaque"}


@pytest.mark.cluster
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_api_server_accepts_the_example(path: Path, shop: Kubectl, operator: OperatorProcess) -> None:
    shop("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path))


@pytest.mark.cluster
def test_api_server_is_asked_for_each_field(shop: Kubectl, operator: OperatorProcess) -> None:
    [example] = documents(ENCRYPTED[0])
    example["spec"]["scpoe"] = "Strict"
    with pytest.raises(KubectlError, match="scpoe"):
        shop("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(example))


@pytest.mark.parametrize("path", ENCRYPTED, ids=lambda path: path.stem)
def test_encrypted_examples_hold_blobs_alone(path: Path) -> None:
    [example] = documents(path)
    assert not {"data", "stringData"} & example.keys()
    for key, text in example["spec"]["encryptedData"].items():
        envelope.parse(text, where=key)


def test_no_manifest_in_the_repository_is_a_plain_secret() -> None:
    seen, found = 0, []
    for path in sources():
        if path.suffix not in (".yaml", ".yml", ".json", ".tpl"):
            continue
        text = path.read_text()
        seen += 1
        if "templates" in path.parts:  # not YAML before Helm has rendered it
            plain = bool(_SECRET.search(text))
        else:
            plain = any(secrets_with_values(list(yaml.safe_load_all(text))))
        if plain:
            found.append(str(path.relative_to(REPOSITORY)))
    assert seen > len(EXAMPLES)
    assert found == []


def test_no_file_in_the_repository_holds_a_private_key() -> None:
    found = [str(path.relative_to(REPOSITORY)) for path in sources() if _PRIVATE_KEY.search(path.read_bytes())]
    assert found == []


@pytest.mark.parametrize(
    "manifest",
    [
        {"kind": "Secret", "data": {"a": "eA=="}},
        {"kind": "Secret", "stringData": {"a": "x"}},
        {"kind": "List", "items": [{"kind": "Secret", "metadata": {"name": "b"}, "data": {"a": "eA=="}}]},
    ],
    ids=["data", "stringData", "inside a list"],
)
def test_search_finds_a_plain_secret(manifest: dict[str, Any]) -> None:
    assert list(secrets_with_values([manifest]))
