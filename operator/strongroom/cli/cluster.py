# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API with the caller's kubeconfig: one request at a time, failures in our words."""

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from strongroom import __version__
from strongroom.cli import names, terminal
from strongroom.cli.failure import CommandError, invalid
from strongroom.cli.options import ClusterOptions
from strongroom.errors import Reason
from strongroom.model.labels import CRYPTO_API_VERSION, CRYPTO_GROUP, VERSION

_MAX_WAITS = 3
"""How often one request waits because the server said Retry-After."""
_MAX_WAIT_SECONDS = 30
_MAX_CAUSES = 3
_REMEDY = "Remedy"
"""Reason of the cause that repeats the end of our server's messages: what to do."""
_MIN_QUOTE = 4
"""Shortest value looked for in a server's message; shorter ones occur in any text."""
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """Connects on first use. Not for several threads."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._loaded: Any = None

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context (in a pod: the pod's), else `default`."""
        from kubernetes.config import list_kube_config_contexts

        if self._in_pod():
            return _POD_NAMESPACE.read_text().strip() if _POD_NAMESPACE.is_file() else "default"
        with _readable_kubeconfig():
            contexts, active = list_kube_config_contexts(self._options.kubeconfig)  # type: ignore[no-untyped-call]
            name = self._options.kube_context or active["name"]
            chosen = {context["name"]: context["context"] for context in contexts}[name]
            return names.check_namespace(chosen.get("namespace") or "default")

    def get(self, path: str) -> Mapping[str, Any]:
        """One object. Raises CommandError."""
        return self._request("GET", path, None, ())

    def post(self, path: str, body: Mapping[str, Any], *, confidential: Collection[str]) -> Mapping[str, Any]:
        """Send one object, get one back. A failure's message that quotes one of `confidential` is not shown. Asking
        again is harmless for every path this is used for. Raises CommandError."""
        return self._request("POST", path, body, confidential)

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, confidential: Collection[str]
    ) -> Mapping[str, Any]:
        waits = 0
        while True:
            status, headers, payload = self._exchange(method, path, body)
            if 200 <= status < 300:
                return _object(payload, status)
            wait = _retry_after(status, headers)
            if wait is None or waits == _MAX_WAITS:
                raise _refused(status, payload, confidential)
            waits += 1
            terminal.note(f"the server is busy; trying again in {wait} s ({waits} of {_MAX_WAITS})")
            time.sleep(wait)

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, str], bytes]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        client = self._client()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._options.impersonate:
            headers["Impersonate-User"] = self._options.impersonate
        try:
            request = client.param_serialize(
                method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = client.call_api(*request, _request_timeout=self._options.request_timeout or None)
            return response.status, response.getheaders(), response.read()
        except (HTTPError, ApiException, OSError) as error:
            raise CommandError(
                Reason.UNAVAILABLE,
                f"no connection to the Kubernetes API at {client.configuration.host}: {_connection_problem(error)}",
                hint="Check the kubeconfig and that 'kubectl version' reaches the server",
            ) from None

    def _client(self) -> Any:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> Any:
        from kubernetes import client, config

        configuration = client.Configuration()
        with _readable_kubeconfig():
            if self._in_pod():
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=self._options.kubeconfig,
                    context=self._options.kube_context,
                    client_configuration=configuration,
                )
        configuration.retries = False  # ours, above: bounded, and only when the server asks for it
        _check_transport(configuration)
        api = client.ApiClient(configuration)
        api.user_agent = f"strongroom/{__version__}"
        return api

    def _in_pod(self) -> bool:
        from kubernetes.config import KUBE_CONFIG_DEFAULT_LOCATION

        return (
            self._options.kubeconfig is None
            and "KUBERNETES_SERVICE_HOST" in os.environ
            and not any(
                Path(file).expanduser().exists() for file in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if file
            )
        )


def _check_transport(configuration: Any) -> None:
    """Values travel over TLS, or to this very machine (kubectl proxy)."""
    url = urlsplit(configuration.host)
    if url.scheme != "https" and not _is_loopback(url.hostname or ""):
        raise invalid(f"{configuration.host} is not https", hint="Use an https:// server in the kubeconfig")
    if url.scheme == "https" and not configuration.verify_ssl:
        terminal.warn("the kubeconfig switches TLS verification off: anyone on the way can read the values")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _readable_kubeconfig() -> Iterator[None]:
    """Whatever a malformed file makes the loader raise becomes one error; only ConfigException has a text that is known
    to quote no credentials."""
    from kubernetes.config import ConfigException

    try:
        yield
    except CommandError:
        raise
    except Exception as error:
        problem = str(error) if isinstance(error, ConfigException) else type(error).__name__
        raise invalid(
            f"the kubeconfig is not usable: {problem}", hint="Check --kubeconfig, $KUBECONFIG and --kube-context"
        ) from None


def _connection_problem(error: Exception) -> str:
    """What kind of failure; the exceptions' own texts repeat URL and pool."""
    text = f"{type(error).__name__} {error}"
    for sign, meaning in (
        ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
        ("Connection refused", "connection refused"),
        ("NameResolution", "its name does not resolve"),
        ("Timeout", "it did not answer in time"),
    ):
        if sign in text:
            return meaning
    return type(error).__name__


def _retry_after(status: int, headers: Mapping[str, str]) -> int | None:
    """Seconds to wait, if the server asks for it and it is not too long."""
    text = headers.get("Retry-After", "")
    if status not in (429, 503) or not text.isdecimal() or int(text) > _MAX_WAIT_SECONDS:
        return None
    return int(text)


def _object(payload: bytes, status: int) -> Mapping[str, Any]:
    try:
        value = json.loads(payload)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandError(
            Reason.INTERNAL,
            f"the server's answer ({status}) is not a JSON object",
            hint="Check that the kubeconfig's server is a Kubernetes API server",
        )
    return value


def _refused(status: int, payload: bytes, confidential: Collection[str]) -> CommandError:
    """A failed request in our words. Only the fields of a Kubernetes Status are ever shown, never a raw body."""
    try:
        answer = json.loads(payload)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    cause = str(answer.get("reason") or "")
    if status == 404 and cause not in Reason.__members__.values():
        return _api_absent("the cluster does not serve it")
    if status == 503 and cause not in Reason.__members__.values():
        return _api_absent("the cluster knows it, but nothing answers")
    reason = Reason(cause) if cause in Reason.__members__.values() else _reason_of(status)
    if status == 401:
        message, hint = "the Kubernetes API does not accept your credentials", "Log in again, or check the kubeconfig"
    else:
        message, hint = _message(answer, status, confidential)
    ours = reason.value == cause or cause in ("", "Forbidden", "Unauthorized")
    return CommandError(reason, message, hint=hint, cause="" if ours else cause)


def _reason_of(status: int) -> Reason:
    """For answers that carry none of our reasons: kube-apiserver's own."""
    match status:
        case 401 | 403:
            return Reason.ACCESS_DENIED
        case 429:
            return Reason.THROTTLED
        case _ if status >= 500:
            return Reason.UNAVAILABLE
        case _:
            return Reason.INVALID_REQUEST


def _message(answer: Mapping[str, Any], status: int, confidential: Collection[str]) -> tuple[str, str]:
    """What is wrong, and what the server says to do about it, if it does: its message ends with that."""
    text = str(answer.get("message") or f"the server answered {status} without a message")
    details = answer.get("details")
    found = details.get("causes") if isinstance(details, dict) else None
    causes = [cause for cause in found if isinstance(cause, dict)] if isinstance(found, list) else []
    more = [
        f"{cause.get('field') or cause.get('reason') or 'cause'}: {cause['message']}"
        for cause in causes[:_MAX_CAUSES]
        if cause.get("message") and str(cause["message"]) not in text
    ]
    if any(len(value) >= _MIN_QUOTE and value in "; ".join((text, *more)) for value in confidential):
        return f"the server refused ({status}); its message quotes a value and is not shown", ""
    remedies = (str(cause.get("message")) for cause in causes if cause.get("reason") == _REMEDY)
    remedy = next((remedy for remedy in remedies if text.endswith(f". {remedy}")), "")
    return "; ".join((text.removesuffix(f". {remedy}") if remedy else text, *more)), remedy


def _api_absent(what: str) -> CommandError:
    return CommandError(
        Reason.UNAVAILABLE,
        f"the API {CRYPTO_API_VERSION} is not available: {what}",
        hint=f"Check that Strongroom is installed and running: kubectl get apiservice {VERSION}.{CRYPTO_GROUP}",
    )
