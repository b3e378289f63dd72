# SPDX-License-Identifier: Apache-2.0
"""Requests to the API server over one kept-alive connection: exact bodies, and a thousand of them in a few seconds."""

import base64
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class Refused(Exception):
    """The API server's answer was not 2xx. `body` is its Status object."""

    def __init__(self, code: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{code} {body.get('reason')}: {body.get('message')}")
        self.code = code
        self.body = body

    @property
    def reason(self) -> str:
        return str(self.body.get("reason"))


@dataclass
class Api:
    """The API server as the user of a kubeconfig sees it. Not thread-safe: one a thread."""

    connection: http.client.HTTPSConnection
    headers: Mapping[str, str]

    def __call__(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json", **query: str
    ) -> Any:
        """The parsed answer. Raises Refused."""
        target = f"{path}?{urlencode(query)}" if query else path
        content = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": content_type}
        try:
            self.connection.request(method, target, content, headers)
            answer = self.connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.connection.close()  # kept alive over a stop of the API server: what was sent never reached one
            self.connection.request(method, target, content, headers)
            answer = self.connection.getresponse()
        parsed = json.loads(answer.read())
        if answer.status >= 300:
            raise Refused(answer.status, parsed)
        return parsed

    def find(self, path: str) -> Any | None:
        """The object, or None if there is none."""
        try:
            return self("GET", path)
        except Refused as error:
            if error.code == 404:
                return None
            raise

    def patch(self, path: str, body: object, *, manager: str = "") -> Any:
        """A merge patch, or a JSON Patch if `body` is a list, by the field manager."""
        content_type = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        return self("PATCH", path, body, content_type=content_type, fieldManager=manager or "someone")

    def apply(self, path: str, body: Mapping[str, Any]) -> Any:
        """Server-side apply of a whole object."""
        return self("PATCH", path, body, content_type=APPLY_PATCH, fieldManager="gitops", force="true")


@contextmanager
def connect(kubeconfig: Path) -> Iterator[Api]:
    """The API server of a kubeconfig of the test bed, as its user."""
    content = json.loads(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    headers = {}
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    else:
        with tempfile.NamedTemporaryFile(dir=kubeconfig.parent) as file:
            file.write(base64.b64decode(user["client-key-data"]) + base64.b64decode(user["client-certificate-data"]))
            file.flush()
            tls.load_cert_chain(file.name)
    connection = http.client.HTTPSConnection(urlsplit(cluster["server"]).netloc, context=tls, timeout=60)
    try:
        yield Api(connection, headers)
    finally:
        connection.close()
