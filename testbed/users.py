# SPDX-License-Identifier: Apache-2.0
"""Kubeconfigs, 0600: users by client certificate, ServiceAccounts by TokenRequest."""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.certificates import CertificateAuthority, write_private

if TYPE_CHECKING:
    from testbed.controlplane import ControlPlane

_TOKEN_LIFETIME = "24h"


def certificate_user(control_plane: "ControlPlane", name: str, groups: Sequence[str] = ()) -> Path:
    """Kubeconfig of a user with these groups. No permission comes with it: bind what the user needs."""
    return certificate_kubeconfig(control_plane.directory, control_plane.url, control_plane.ca, name, tuple(groups))


def service_account(control_plane: "ControlPlane", namespace: str, name: str, *, server: str | None = None) -> Path:
    """Kubeconfig of an existing ServiceAccount, with a token for 24 hours.

    `server` replaces the API server's address, for a fault proxy in between: tokens pass it, client certificates not.
    """
    token = control_plane.kubectl("create", "token", name, "--namespace", namespace, "--duration", _TOKEN_LIFETIME)
    return _write_kubeconfig(
        control_plane.directory,
        server or control_plane.url,
        control_plane.ca.certificate,
        f"{namespace}-{name}",
        {"token": token.strip()},
    )


def certificate_kubeconfig(
    directory: Path, server: str, ca: CertificateAuthority, name: str, groups: tuple[str, ...]
) -> Path:
    """Kubeconfig with a new client certificate of `ca`, which also vouches for the server."""
    files = ca.issue_client(f"user-{secrets.token_hex(4)}", name, groups)
    user = {
        "client-certificate-data": _base64(files.certificate.read_bytes()),
        "client-key-data": _base64(files.key.read_bytes()),
    }
    return _write_kubeconfig(directory, server, ca.certificate, name, user)


def _write_kubeconfig(directory: Path, server: str, ca: Path, name: str, user: Mapping[str, str]) -> Path:
    cluster = {"server": server, "certificate-authority-data": _base64(ca.read_bytes())}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name, "namespace": "default"}}],
        "current-context": "testbed",
    }
    path = directory / f"{name.replace(':', '-').replace('/', '-')}-{secrets.token_hex(4)}.kubeconfig"
    write_private(path, json.dumps(kubeconfig, indent=2).encode())
    return path


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
