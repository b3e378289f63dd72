# SPDX-License-Identifier: Apache-2.0
"""The aggregated API as kube-apiserver shows it, over HTTPS on loopback, with real AES-GCM and the real binding.

Answers that the real server gives only in trouble are queued with `fail`.
"""

import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.envelope import format as blob_format
from strongroom.envelope.aad import additional_data
from strongroom.envelope.format import Blob
from strongroom.model.algorithms import Algorithm
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef

KEY_ID = uuid.UUID("5f0c9c5e-0a51-4f6c-9d6a-2d5a7e1f0c11")
API_VERSION = "crypto.strongroom.dev/v1alpha1"
TOKEN = "token-of-the-caller"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    status: int
    body: Any
    """A dict becomes JSON, a str is sent as text."""
    headers: dict[str, str] = field(default_factory=dict)


def status(code: int, reason: str, message: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
        **more,
    }


class FakeApi:
    """One server. `requests` holds what arrived; `fail` queues answers given instead of real ones."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[Request] = []
        self.keys = {"prod": "Enabled", "old": "Archived"}
        self._queue: list[Answer] = []
        self.tamper: Any = None
        """Called with the answer of an operation, may change it."""
        self._aes = AESGCM(hashlib.sha256(b"the key of the fake").digest())
        certificate, key = _certificate(directory)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate, key)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.port = self._server.server_address[1]
        self.kubeconfig = directory / "kubeconfig"
        self.write_kubeconfig(certificate.read_bytes())

    def write_kubeconfig(self, ca: bytes, *, namespace: str | None = "from-context") -> None:
        context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
        other = {"cluster": "c", "user": "u", "namespace": "of-the-other"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "main",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://127.0.0.1:{self.port}",
                        "certificate-authority-data": base64.b64encode(ca).decode(),
                    },
                }
            ],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "main", "context": context}, {"name": "other", "context": other}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, *answers: Answer) -> None:
        self._queue.extend(answers)

    def reset(self) -> None:
        self.requests.clear()
        self._queue.clear()
        self.tamper = None

    def blob(self, plaintext: bytes, binding: Binding, *, version: int = 3) -> str:
        """Deterministic: the nonce follows from place and plaintext, so that transcripts are stable."""
        key = KeyVersionRef(KeyId(KEY_ID), KeyVersion(version))
        header = blob_format.pack_header(Algorithm.AES_256_GCM, key)
        aad = additional_data(header, binding)
        nonce = hashlib.sha256(aad + plaintext).digest()[:12]
        return Blob(Algorithm.AES_256_GCM, key, nonce, self._aes.encrypt(nonce, plaintext, aad)).serialise()

    def answer(self, request: Request) -> Answer:
        if self._queue:
            return self._queue.pop(0)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, status(401, "Unauthorized", "Unauthorized"))
        parts = request.path.strip("/").split("/")
        match (request.method, parts[2:]):
            case ("GET", []):
                return Answer(200, {"kind": "APIGroup", "versions": [{"groupVersion": API_VERSION}]})
            case ("GET", ["v1alpha1", "namespaces", namespace, "keys"]):
                items = [self._key(namespace, name) for name in self.keys]
                return Answer(200, {"apiVersion": API_VERSION, "kind": "KeyList", "items": items})
            case (_, ["v1alpha1", "namespaces", _, "keys", name, *_]) if name not in self.keys:
                return Answer(404, status(404, "KeyNotFound", f"there is no key {name}"))
            case ("GET", ["v1alpha1", "namespaces", namespace, "keys", name]):
                return Answer(200, self._key(namespace, name))
            case ("POST", ["v1alpha1", "namespaces", namespace, "keys", _, "encrypt"]):
                return self._operate(request.body, namespace, self._encrypt)
            case ("POST", ["v1alpha1", "namespaces", namespace, "keys", _, "decrypt"]):
                return self._operate(request.body, namespace, self._decrypt)
            case _:
                return Answer(404, "404 page not found\n")

    def _key(self, namespace: str, name: str) -> dict[str, Any]:
        return {
            "apiVersion": API_VERSION,
            "kind": "Key",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"keySpec": "AES_256"},
            "status": {"keyId": str(KEY_ID), "state": self.keys[name], "currentVersion": 3},
        }

    def _operate(self, body: dict[str, Any], namespace: str, operation: Any) -> Answer:
        spec = body["spec"]

        def binding(data_key: str) -> Binding:
            context = EncryptionContext.parse(spec["encryptionContext"])
            return Binding(Purpose.SECRET, Scope(spec["scope"]), namespace, spec["name"], data_key, context)

        answer: Answer = operation(body, spec, binding)
        if self.tamper and answer.status == 201:
            self.tamper(answer.body)
        return answer

    def _encrypt(self, body: dict[str, Any], spec: dict[str, Any], binding: Any) -> Answer:
        assert body["kind"] == "EncryptRequest"
        blobs = {key: self.blob(base64.b64decode(text), binding(key)) for key, text in spec["values"].items()}
        result = {"keyId": str(KEY_ID), "keyVersion": 3, "encryptedData": blobs}
        return Answer(201, body | {"spec": {}, "status": result})

    def _decrypt(self, body: dict[str, Any], spec: dict[str, Any], binding: Any) -> Answer:
        assert body["kind"] == "DecryptRequest"
        values: dict[str, str] = {}
        for key, text in spec["encryptedData"].items():
            blob = blob_format.parse(text, where=key)
            try:
                plaintext = self._aes.decrypt(blob.nonce, blob.body, additional_data(blob.header, binding(key)))
            except InvalidTag:
                return Answer(400, status(400, "InvalidCiphertext", f"data key '{key}' does not decrypt"))
            values[key] = base64.b64encode(plaintext).decode()
        return Answer(201, body | {"spec": {}, "status": {"keyVersions": [3], "values": values}})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve()

            def do_POST(self) -> None:
                self._serve()

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(self.command, self.path, headers, json.loads(raw) if raw else None)
                api.requests.append(request)
                answer = api.answer(request)
                payload = answer.body.encode() if isinstance(answer.body, str) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for key, value in answer.headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fake")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "tls.crt", directory / "tls.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
