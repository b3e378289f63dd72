# SPDX-License-Identifier: Apache-2.0
"""A control plane of its own: etcd, kube-apiserver and kube-controller-manager on loopback, RBAC on."""

import json
import shutil
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from testbed import REPOSITORY, binaries
from testbed.certificates import CertificateAuthority, CertificateFiles, private_key_pem, write_private
from testbed.kubectl import Kubectl, KubectlError
from testbed.metrics import Metrics
from testbed.processes import ManagedProcess, free_port
from testbed.users import certificate_kubeconfig
from testbed.waiting import wait_for

_AUDIT_POLICY = REPOSITORY / "testbed" / "audit-policy.yaml"
_FRONT_PROXY = "front-proxy-client"
_READY_SECONDS = 120.0

# What tests rely on: namespaces and owned objects are deleted, ServiceAccounts and the CA's ConfigMap appear, roles
# are aggregated, quotas are counted, and admission policies are type-checked. There are no nodes, so nothing else.
_CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "validatingadmissionpolicy-status-controller",
)


class ControlPlane:
    """Start with `start()` or as a context manager. All files are below `directory`, temporary unless given.

    `kubeconfig` and `kubectl` are the administrator's (group system:masters). `ca` vouches for the API server and
    signs users. Objects live in etcd and survive `stop_apiserver()`. Not thread-safe.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="strongroom-testbed-"))
        self.binaries = binaries.ensure()
        self.ca = CertificateAuthority("ca", self.directory)
        self._port = free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = certificate_kubeconfig(self.directory, self.url, self.ca, "admin", ("system:masters",))
        self.kubectl = Kubectl(self.binaries.kubectl, self.kubeconfig, self.directory)
        self.audit_log = self.directory / "kube-apiserver-audit.log"
        """kube-apiserver's own audit log, JSON lines, written before the answer is."""
        self._prober = self.ca.issue_client("prober", "prober", ("system:masters",))
        self._etcd_url = f"https://127.0.0.1:{free_port()}"
        self._controller_manager_port = free_port()
        service_account_key = self.directory / "service-account.key"
        write_private(service_account_key, private_key_pem(ec.generate_private_key(ec.SECP256R1())))
        self._serving = self.ca.issue_server("kube-apiserver", "127.0.0.1", "localhost", "kubernetes.default.svc")
        etcd_ca = CertificateAuthority("etcd-ca", self.directory)
        self._etcd = self._make_etcd(etcd_ca)
        self._apiserver = self._make_apiserver(etcd_ca, service_account_key)
        self._controller_manager = self._make_controller_manager(service_account_key)

    def __enter__(self) -> "ControlPlane":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when it can be used. Raises TestBedError with the end of the failing log."""
        self._etcd.start()
        self.start_apiserver()
        self._controller_manager.start()
        self._controller_manager.wait_ready(
            lambda: self._answers(f"https://127.0.0.1:{self._controller_manager_port}/healthz"), _READY_SECONDS
        )
        wait_for(
            lambda: self.kubectl("get", "serviceaccount", "default", "--namespace", "default"),
            _READY_SECONDS,
            "the default ServiceAccount",
            retry_on=(KubectlError,),
        )

    def stop(self) -> None:
        """Stop everything, and remove the directory if it was made here. Does nothing a second time."""
        self._controller_manager.stop()
        self.stop_apiserver()
        self._etcd.stop()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def stop_apiserver(self) -> None:
        """Take the API server away at once, as a crash does; etcd keeps the objects, the controller manager waits."""
        # Asked politely, it would wait a minute for its watches to end.
        self._apiserver.kill()

    def start_apiserver(self) -> None:
        """Bring the API server back, at the same address; returns when it is ready."""
        self._apiserver.start()
        self._apiserver.wait_ready(lambda: self._answers(f"{self.url}/readyz"), _READY_SECONDS)

    def processes(self) -> tuple[ManagedProcess, ...]:
        """etcd, kube-apiserver and kube-controller-manager."""
        return (self._etcd, self._apiserver, self._controller_manager)

    def audit_events(self) -> list[dict[str, Any]]:
        """Everything in kube-apiserver's audit log so far, oldest first."""
        # The last line may be half written while requests are under way.
        return [
            json.loads(line) for line in self.audit_log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def metrics(self) -> Metrics:
        """kube-apiserver's metrics as of now, such as apiserver_request_total."""
        return Metrics.parse(self.kubectl("get", "--raw", "/metrics"))

    def _answers(self, url: str) -> bool:
        """Whether a GET is answered with 200. Raises OSError if nobody is there."""
        context = ssl.create_default_context(cafile=str(self.ca.certificate))
        context.load_cert_chain(self._prober.certificate, self._prober.key)
        try:
            with urllib.request.urlopen(url, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False

    def _process(self, name: str, binary: Path, *arguments: str) -> ManagedProcess:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory)}
        log = self.directory / f"{name}.log"
        return ManagedProcess(name, [binary, *arguments], log=log, env=environment, cwd=self.directory)

    def _make_etcd(self, ca: CertificateAuthority) -> ManagedProcess:
        files = ca.issue_server("etcd", "127.0.0.1")
        peer = f"https://127.0.0.1:{free_port()}"
        return self._process(
            "etcd",
            self.binaries.etcd,
            "--name=testbed",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=testbed={peer}",
            *_etcd_tls("", files, ca),
            *_etcd_tls("peer-", files, ca),
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
            # Losing data in a power cut is no loss here, and tests run three times as fast.
            "--unsafe-no-fsync",
        )

    def _make_apiserver(self, etcd_ca: CertificateAuthority, service_account_key: Path) -> ManagedProcess:
        etcd_client = etcd_ca.issue_client("etcd-client", "kube-apiserver")
        front_proxy_ca = CertificateAuthority("front-proxy-ca", self.directory)
        front_proxy = front_proxy_ca.issue_client(_FRONT_PROXY, _FRONT_PROXY)
        return self._process(
            "kube-apiserver",
            self.binaries.kube_apiserver,
            f"--etcd-servers={self._etcd_url}",
            f"--etcd-cafile={etcd_ca.certificate}",
            f"--etcd-certfile={etcd_client.certificate}",
            f"--etcd-keyfile={etcd_client.key}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            # A loopback address is not valid in an EndpointSlice, and nobody here looks for the API server in one.
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={self.ca.certificate}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={service_account_key}",
            f"--service-account-signing-key-file={service_account_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # Aggregated APIs. Without --enable-aggregator-routing, which cannot reach a Service of type ExternalName.
            f"--requestheader-client-ca-file={front_proxy_ca.certificate}",
            f"--requestheader-allowed-names={_FRONT_PROXY}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={front_proxy.certificate}",
            f"--proxy-client-key-file={front_proxy.key}",
            f"--audit-policy-file={_AUDIT_POLICY}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",
        )

    def _make_controller_manager(self, service_account_key: Path) -> ManagedProcess:
        kubeconfig = certificate_kubeconfig(self.directory, self.url, self.ca, "system:kube-controller-manager", ())
        return self._process(
            "kube-controller-manager",
            self.binaries.kube_controller_manager,
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._controller_manager_port}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={service_account_key}",
            f"--root-ca-file={self.ca.certificate}",
            "--leader-elect=false",
            # At the default of 20 a second, deleting thousands of objects is the slowest part of a test.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )


def _etcd_tls(prefix: str, files: CertificateFiles, ca: CertificateAuthority) -> tuple[str, ...]:
    return (
        f"--{prefix}cert-file={files.certificate}",
        f"--{prefix}key-file={files.key}",
        f"--{prefix}trusted-ca-file={ca.certificate}",
        f"--{prefix}client-cert-auth=true",
    )
