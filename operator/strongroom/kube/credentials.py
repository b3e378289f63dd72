# SPDX-License-Identifier: Apache-2.0
"""Where the API server is and how we prove who we are: in a pod, or from a kubeconfig."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config

from strongroom.config import ConfigurationError

_POD_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One API server and one identity."""

    server: str
    ssl_context: ssl.SSLContext
    static_token: str
    token_file: Path | None

    def __repr__(self) -> str:
        return f"<Credentials for {self.server}>"

    def authorization(self) -> str | None:
        """Value of the Authorization header, read anew on each call: projected tokens are replaced on disk."""
        token = self.token_file.read_text().strip() if self.token_file else self.static_token
        return f"Bearer {token}" if token else None


def load() -> Credentials:
    """KUBECONFIG if it is set, else the pod's own ServiceAccount. Raises ConfigurationError."""
    if os.environ.get("KUBECONFIG"):
        return _from_kubeconfig()
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigurationError("neither KUBECONFIG is set nor does this run in a pod")
    host = f"[{host}]" if ":" in host else host
    return Credentials(
        server=f"https://{host}:{port}",
        ssl_context=ssl.create_default_context(cafile=str(_POD_DIRECTORY / "ca.crt")),
        static_token="",
        token_file=_POD_DIRECTORY / "token",
    )


def _from_kubeconfig() -> Credentials:
    configuration: Any = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=os.environ["KUBECONFIG"], client_configuration=configuration
        )
    except Exception as error:
        raise ConfigurationError(f"KUBECONFIG cannot be used: {type(error).__name__}: {error}") from None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    token = str(configuration.api_key.get("BearerToken", "")).removeprefix("Bearer ")
    return Credentials(server=configuration.host.rstrip("/"), ssl_context=context, static_token=token, token_file=None)
