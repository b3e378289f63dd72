# SPDX-License-Identifier: Apache-2.0
"""How kube-apiserver proves that a request comes through it, as it publishes that in kube-system."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from strongroom.kube import paths
from strongroom.kube.client import KubeClient

USER_HEADER: Final = "x-remote-user"
GROUP_HEADER: Final = "x-remote-group"
UID_HEADER: Final = "x-remote-uid"
EXTRA_PREFIX: Final = "x-remote-extra-"
"""The headers that kube-apiserver itself sets for an aggregated API, and so removes from what a client sent. Others
that its configuration may name it passes on untouched: whoever calls could put any identity into them."""


class FrontProxyUnusable(Exception):
    """kube-apiserver's front proxy configuration gives no way to know who calls. The message says what to do."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """Whom to believe about the caller's identity, and which headers."""

    client_ca: str
    """CA certificates, PEM, one of which signed the client certificate of a front proxy."""
    allowed_names: frozenset[str]
    """Common names a front proxy may have; never empty."""
    headers: frozenset[str]
    """Which of the identity headers above carry an identity; USER_HEADER always does."""

    def authorities(self) -> list[x509.Certificate]:
        """The certificates in `client_ca`; never empty."""
        return x509.load_pem_x509_certificates(self.client_ca.encode())


async def read(kube: KubeClient) -> FrontProxy:
    """The configuration as it stands. Raises FrontProxyUnusable, ApiError."""
    config_map = await kube.get(paths.FRONT_PROXY_CONFIGURATION)
    return parse(config_map.get("data") or {})


def parse(data: Mapping[str, Any]) -> FrontProxy:
    """Read the ConfigMap's data. Raises FrontProxyUnusable."""
    client_ca = data.get("requestheader-client-ca-file")
    if not isinstance(client_ca, str) or not client_ca.strip():
        raise FrontProxyUnusable("kube-apiserver has no front proxy CA: start it with --requestheader-client-ca-file")
    try:
        x509.load_pem_x509_certificates(client_ca.encode())
    except ValueError:
        raise FrontProxyUnusable("requestheader-client-ca-file holds no certificates in PEM") from None
    allowed_names = frozenset(_strings(data, "requestheader-allowed-names"))
    if not allowed_names:
        raise FrontProxyUnusable(
            "requestheader-allowed-names is empty, so any certificate of that CA could claim any identity: start "
            "kube-apiserver with --requestheader-allowed-names, naming its front proxy"
        )
    listed = {
        *_strings(data, "requestheader-username-headers"),
        *_strings(data, "requestheader-group-headers"),
        *_strings(data, "requestheader-uid-headers"),
        *_strings(data, "requestheader-extra-headers-prefix"),
    }
    headers = {name.lower() for name in listed} & {USER_HEADER, GROUP_HEADER, UID_HEADER, EXTRA_PREFIX}
    if USER_HEADER not in headers:
        raise FrontProxyUnusable("requestheader-username-headers does not name X-Remote-User, which is what is sent")
    return FrontProxy(client_ca=client_ca, allowed_names=allowed_names, headers=frozenset(headers))


def _strings(data: Mapping[str, Any], field: str) -> list[str]:
    """A field that holds a JSON list of strings; absent means empty."""
    try:
        value = json.loads(data.get(field) or "[]")
    except ValueError:
        raise FrontProxyUnusable(f"{field} is not a JSON list") from None
    if not isinstance(value, list):
        raise FrontProxyUnusable(f"{field} is not a JSON list")
    return [item for item in value if isinstance(item, str) and item]
