# SPDX-License-Identifier: Apache-2.0
"""What the chart renders, as facts about the parsed objects."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from strongroom.config import Config, load
from testbed import REPOSITORY
from testbed.controlplane import ControlPlane

pytestmark = pytest.mark.cluster

CHART = REPOSITORY / "charts" / "strongroom"
HSM = {
    "name": "payments",
    "module": "/opt/vendor/lib/libpkcs11.so",
    "moduleSha256": "ab" * 32,
    "tokenLabel": "payments",
    "profile": "thales-luna",
    "profileChanges": {"oaepHash": "sha1"},
    "libraryParameters": "configdir='sql:/opt/vendor'",
    "pinSecret": {"name": "payments-pin", "key": "user"},
    "environment": {"VENDOR_CONF": "/opt/vendor/conf", "RETRIES": "3"},
    "sessions": 16,
    "operationTimeoutSeconds": 2.5,
    "certification": "FIPS 140-3 Level 3",
}
WITHOUT_LOGIN = {
    "name": "cloud",
    "module": "/opt/google/libkmsp11.so",
    "tokenLabel": "ring",
    "profile": "google-cloud-kms",
    "environment": {"KMS_PKCS11_CONFIG": "/opt/google/config.yaml"},
}
EVERYTHING = {
    "global": {"anything": 1},
    "nameOverride": "vault",
    "fullnameOverride": "the-vault",
    "commonLabels": {"team": "security"},
    "image": {"repository": "example.org/strongroom", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "serviceAccount": {"name": "keeper", "annotations": {"a": "b"}},
    "hsms": [HSM],
    "softhsm": {"name": "try", "persistence": {"storageClass": "fast", "size": "1Gi"}},
    "service": {"annotations": {"a": "b"}},
    "audit": {"file": "/var/log/strongroom/audit.jsonl", "strict": False},
    "secrets": {"driftWatch": False, "maxPlaintextBytes": 100, "deniedMetadata": ["^replicator\\.v1\\.mittwald\\.de/"]},
    "workers": 8,
    "relistSeconds": 1000000,
    "logLevel": "DEBUG",
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "vendor", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "vendor", "mountPath": "/opt/vendor"}],
}
VARIANTS = {
    "default": {},
    "everything": EVERYTHING,
    "real HSM alone": {"softhsm": {"enabled": False}, "hsms": [HSM]},
    "HSM without a login": {"softhsm": {"enabled": False}, "hsms": [WITHOUT_LOGIN]},
    "two real HSMs": {"softhsm": {"enabled": False}, "hsms": [HSM, WITHOUT_LOGIN]},
    "without the crypto API": {"apiService": {"enabled": False}},
    "existing ServiceAccount and claim": {
        "serviceAccount": {"create": False, "name": "mine"},
        "softhsm": {"persistence": {"existingClaim": "mine"}},
    },
    "nothing optional": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "apiService": {"enabled": False},
        "admissionPolicy": {"enabled": False},
    },
}
variants = pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    found = [item for item in objects if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {name}"
    return found[0]


@variants
def test_helm_lint_has_nothing_to_say(
    values: dict[str, Any], helm: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = helm("lint", "--strict", "--quiet", str(CHART), values=values)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@variants
def test_api_server_accepts_every_object(
    values: dict[str, Any], render: Callable[..., Any], control_plane: ControlPlane
) -> None:
    kubectl = control_plane.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strongroom"}})
    objects = render(values)
    said = kubectl.apply(*objects, options=["--dry-run=server", "--validate=strict"])
    assert len(said.splitlines()) == len(objects)


def test_pod_is_admitted_under_the_restricted_pod_security_standard(
    render: Callable[..., Any], control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    template = one(render(), "Deployment")["spec"]["template"]
    spec = template["spec"] | {"serviceAccountName": "default", "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec}
    control_plane.kubectl.apply(pod, options=["--dry-run=server"])


@variants
def test_operator_accepts_its_configuration(values: dict[str, Any], render: Callable[..., Any], tmp_path: Path) -> None:
    config_map = one(render(values), "ConfigMap")
    path = tmp_path / "config.yaml"
    path.write_text(config_map["data"]["config.yaml"])
    assert isinstance(load(path), Config)
    assert config_map["immutable"] is True


def test_every_value_reaches_the_configuration(render: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(one(render(EVERYTHING), "ConfigMap")["data"]["config.yaml"])
    config = load(path)
    software, real = config.hsms
    assert (software.name, software.profile) == ("try", "softhsm")
    assert software.environment == {"SOFTHSM2_CONF": "/etc/strongroom/softhsm2.conf"}
    assert (real.name, real.module, real.module_sha256) == (HSM["name"], HSM["module"], HSM["moduleSha256"])
    assert (real.profile, real.profile_changes) == (HSM["profile"], HSM["profileChanges"])
    assert (real.library_parameters, real.resolved_profile.oaep_hash) == (HSM["libraryParameters"], "sha1")
    assert (real.token_label, real.environment) == (HSM["tokenLabel"], HSM["environment"])
    assert (real.sessions, real.operation_timeout_seconds) == (HSM["sessions"], HSM["operationTimeoutSeconds"])
    assert real.certification == HSM["certification"]
    assert (config.namespace, config.service_account, config.api.service_name) == ("strongroom", "keeper", "the-vault")
    assert (config.audit.file, config.audit.strict) == ("/var/log/strongroom/audit.jsonl", False)
    assert (config.secrets.drift_watch, config.secrets.max_plaintext_bytes) == (False, 100)
    assert config.secrets.denied_metadata == EVERYTHING["secrets"]["deniedMetadata"]
    assert (config.workers, config.relist_seconds, config.log_level) == (8, 1000000, "DEBUG")


def test_another_configuration_makes_another_config_map_and_so_another_pod(render: Callable[..., Any]) -> None:
    def names(values: dict[str, Any]) -> set[str]:
        objects = render(values)
        volumes = one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
        mounted = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "config")
        return {one(objects, "ConfigMap")["metadata"]["name"], mounted}

    assert len(names({})) == len(names({"workers": 31})) == 1
    assert names({}) == names({"podLabels": {"a": "b"}})
    assert names({}) != names({"workers": 31})


def test_pin_files_are_where_the_configuration_looks(render: Callable[..., Any]) -> None:
    objects = render(EVERYTHING)
    config = yaml.safe_load(one(objects, "ConfigMap")["data"]["config.yaml"])
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secrets = {}
    for hsm in config["hsms"]:
        mount = mounts[f"pin-{hsm['name']}"]
        assert mount["readOnly"] is True
        (item,) = volumes[mount["name"]]["secret"]["items"]
        assert f"{mount['mountPath']}/{item['path']}" == hsm["pinFile"]
        secrets[hsm["name"]] = (volumes[mount["name"]]["secret"]["secretName"], item["key"])
    assert secrets == {"try": ("strongroom-pin", "pin"), "payments": ("payments-pin", "user")}


def test_nothing_but_the_token_is_writable(render: Callable[..., Any]) -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")} == {"softhsm"}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "softhsm"]
    assert "persistentVolumeClaim" in volume


@variants
def test_probes_ask_the_plain_port_which_needs_nothing_but_the_process(
    values: dict[str, Any], render: Callable[..., Any]
) -> None:
    objects = render(values)
    config = yaml.safe_load(one(objects, "ConfigMap")["data"]["config.yaml"])
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["metrics"] == config["metricsPort"] != 0
    for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}


@variants
def test_operators_container_alone_gets_a_token_and_a_short_lived_one(
    values: dict[str, Any], render: Callable[..., Any]
) -> None:
    objects = render(values)
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (volume,) = [volume for volume in pod["volumes"] if "projected" in volume]
    (token,) = [source for source in volume["projected"]["sources"] if "serviceAccountToken" in source]
    assert token == {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    mounted = {
        container["name"]: mount
        for container in [*pod.get("initContainers", []), *pod["containers"]]
        for mount in container["volumeMounts"]
        if mount["name"] == volume["name"]
    }
    assert mounted == {
        "operator": {
            "name": volume["name"],
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            "readOnly": True,
        }
    }


def test_candidate_for_the_lease_is_named_by_the_pods_uid(render: Callable[..., Any]) -> None:
    (container,) = one(render(EVERYTHING), "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {variable.pop("name"): variable for variable in container["env"]}
    assert environment == {
        "POD_UID": {"valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        "TZ": {"value": "UTC"},
    }


@variants
def test_service_leads_from_the_api_service_to_the_pod(values: dict[str, Any], render: Callable[..., Any]) -> None:
    objects = render(values)
    services = [item for item in objects if item["kind"] == "Service"]
    if not values.get("apiService", {}).get("enabled", True):
        assert not services
        assert not [item for item in objects if item["kind"] == "APIService"]
        return
    (service,) = services
    spec = one(objects, "APIService", "v1alpha1.crypto.strongroom.dev")["spec"]
    deployment = one(objects, "Deployment")["spec"]
    assert spec["service"] == {"name": service["metadata"]["name"], "namespace": "strongroom", "port": 443}
    assert (service["spec"]["ports"][0]["port"], service["spec"]["ports"][0]["targetPort"]) == (443, "https")
    assert service["spec"]["selector"] == deployment["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= deployment["template"]["metadata"]["labels"].items()


@variants
def test_api_service_fails_closed_until_the_operator_vouches_for_itself(
    values: dict[str, Any], render: Callable[..., Any]
) -> None:
    text = json.dumps(render(values))
    assert "caBundle" not in text
    assert "insecureSkipTLSVerify" not in text


def test_rendering_twice_gives_the_same(render: Callable[..., Any]) -> None:
    assert render(EVERYTHING) == render(EVERYTHING)


@pytest.mark.parametrize("path", sorted((CHART / "templates").rglob("*")), ids=lambda path: path.name)
def test_templates_neither_read_the_cluster_nor_make_random_things(path: Path) -> None:
    actions = " ".join(re.findall(r"\{\{(.*?)\}\}", path.read_text(), re.DOTALL))
    impure = re.compile(r"\b(lookup|gen[A-Z]\w+|derivePassword|htpasswd|bcrypt|rand\w+|uuidv4|now|getHostByName|env)\b")
    assert not impure.findall(actions)


@variants
def test_objects_carry_the_common_labels(values: dict[str, Any], render: Callable[..., Any]) -> None:
    for item in render(values):
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "strongroom"
        assert labels["helm.sh/chart"] == "strongroom-0.1.0"
        assert labels.items() >= values.get("commonLabels", {}).items()


def test_custom_resource_definitions_are_the_source_and_stay_after_an_uninstall(render: Callable[..., Any]) -> None:
    objects = render()
    sources = [yaml.safe_load(path.read_text()) for path in (REPOSITORY / "crds").iterdir()]
    assert len(sources) == len([item for item in objects if item["kind"] == "CustomResourceDefinition"])
    for source in sources:
        rendered = one(objects, "CustomResourceDefinition", source["metadata"]["name"])
        assert rendered["spec"] == source["spec"]
        assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_custom_resource_definitions_go_with_the_release_when_asked(render: Callable[..., Any]) -> None:
    for item in render({"crds": {"keep": False}}):
        if item["kind"] == "CustomResourceDefinition":
            assert "annotations" not in item["metadata"]


def test_keys_in_the_volume_stay_after_an_uninstall(render: Callable[..., Any]) -> None:
    claim = one(render(), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_one_pod_at_a_time_uses_the_volume(render: Callable[..., Any]) -> None:
    spec = one(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "strongroom:0.1.0"),
        ({"repository": "example.org/s", "tag": "1"}, "example.org/s:1"),
        ({"tag": "1", "digest": "sha256:" + "a" * 64}, "strongroom@sha256:" + "a" * 64),
    ],
)
def test_image_is_the_digest_or_the_tag_or_the_charts_version(
    image: dict[str, str], expected: str, render: Callable[..., Any]
) -> None:
    pod = one(render({"image": image}), "Deployment")["spec"]["template"]["spec"]
    assert {container["image"] for container in [*pod["initContainers"], *pod["containers"]]} == {expected}


@pytest.mark.parametrize("release", ["strongroom", "prod", "a" * 53])
def test_namespaced_names_follow_the_release_and_cluster_wide_ones_do_not(
    release: str, render: Callable[..., Any], control_plane: ControlPlane
) -> None:
    objects = render({}, release=release)
    wide = {(item["kind"], item["metadata"]["name"]) for item in objects if "namespace" not in item["metadata"]}
    assert wide == {
        (item["kind"], item["metadata"]["name"]) for item in render() if "namespace" not in item["metadata"]
    }
    assert one(objects, "Service")["metadata"]["name"].startswith(release[:50])
    control_plane.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strongroom"}})
    control_plane.kubectl.apply(*objects, options=["--dry-run=server"])
