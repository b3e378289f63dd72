# SPDX-License-Identifier: Apache-2.0
"""The serving certificate and its CA, as pure values: made, read, judged. Times are aware and in UTC."""

import datetime
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME: Final = datetime.timedelta(days=365)
LEAF_LIFETIME: Final = datetime.timedelta(days=30)
CA_ROTATES_BEFORE_END: Final = datetime.timedelta(days=60)
"""A CA is followed by a new one this long before its end: twice a leaf's life, so no leaf outlives its CA."""
LEAF_RENEWS_BEFORE_END: Final = datetime.timedelta(days=10)
_CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
"""Certificates start this long ago, for API servers whose clock is behind."""


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A CA with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.certificate.subject.rfc4514_string()}>"

    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return to_pem(self.certificate)

    def key_pem(self) -> bytes:
        """The private key, PEM (PKCS#8), not encrypted: for the Secret that keeps it, and nothing else."""
        return _private_pem(self.key)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A serving certificate with its private key; lives in memory alone."""

    key_and_certificate: bytes
    """Both, PEM."""
    certificate: x509.Certificate
    issuer: x509.Certificate

    def __repr__(self) -> str:
        return f"<Leaf until {self.certificate.not_valid_after_utc.isoformat()}>"

    def renewal_is_due(self, now: datetime.datetime) -> bool:
        """Whether it ends so soon that a new one should be signed."""
        return now >= self.certificate.not_valid_after_utc - LEAF_RENEWS_BEFORE_END


def create_authority(now: datetime.datetime) -> CertificateAuthority:
    """A new CA (ECDSA P-256). Its subject is its own, so that verifiers never confuse it with the one before it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"strongroom-serving-ca-{secrets.token_hex(8)}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def read_authority(certificate_pem: bytes, key_pem: bytes) -> CertificateAuthority:
    """A CA as it was kept. Raises ValueError if it is not one, or if key and certificate do not belong together."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("certificate and private key do not belong together")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("the certificate is not a CA's") from None
    if not constraints.ca:
        raise ValueError("the certificate is not a CA's")
    return CertificateAuthority(certificate, key)


def authority_rotation_is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether a CA ends so soon that the next one should be made."""
    return now >= certificate.not_valid_after_utc - CA_ROTATES_BEFORE_END


def predecessor_is_unused(successor: x509.Certificate, now: datetime.datetime) -> bool:
    """Whether the CA before this one can be forgotten: any leaf it signed has ended."""
    return now >= successor.not_valid_before_utc + _CLOCK_SKEW + LEAF_LIFETIME


def sign_leaf(authority: CertificateAuthority, names: tuple[str, ...], now: datetime.datetime) -> Leaf:
    """A new serving certificate for these DNS names, with a new key. Ends with its CA at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom-crypto-api")])
    end = min(now + LEAF_LIFETIME, authority.certificate.not_valid_after_utc)
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Leaf(_private_pem(key) + to_pem(certificate), certificate, authority.certificate)


def to_pem(certificate: x509.Certificate) -> bytes:
    """A certificate, PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(end)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
