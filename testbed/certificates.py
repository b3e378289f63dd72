# SPDX-License-Identifier: Apache-2.0
"""Certificate authorities of the test bed, and what they issue. ECDSA P-256, valid for a week, keys only in files."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY = datetime.timedelta(days=7)
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate and its private key, both PEM."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """A CA whose key lives in this process alone; certificates go to `directory`, `NAME.crt` and `NAME.key` (0600)."""

    def __init__(self, name: str, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {os.urandom(4).hex()}")])
        certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = directory / f"{name}.crt"
        """The CA's own certificate, PEM."""
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue_client(self, file_name: str, common_name: str, organizations: tuple[str, ...] = ()) -> CertificateFiles:
        """A client certificate: Kubernetes takes the user from the common name, the groups from the organizations."""
        return self._issue(file_name, common_name, organizations, None)

    def issue_server(self, file_name: str, *names: str) -> CertificateFiles:
        """A certificate for server and client use (etcd's is both) that is valid for these DNS names and addresses."""
        return self._issue(
            file_name, file_name, (), x509.SubjectAlternativeName([_general_name(name) for name in names])
        )

    def _issue(
        self,
        file_name: str,
        common_name: str,
        organizations: tuple[str, ...],
        names: x509.SubjectAlternativeName | None,
    ) -> CertificateFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
            + [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
        )
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if names is not None:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            _builder(subject, self._name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        files = CertificateFiles(self._directory / f"{file_name}.crt", self._directory / f"{file_name}.key")
        files.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        write_private(files.key, private_key_pem(key))
        return files


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SEC 1 (`EC PRIVATE KEY`), not encrypted: the one form that kube-apiserver takes for ServiceAccount keys too."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, never readable by others in between."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALIDITY)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
