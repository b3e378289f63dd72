# SPDX-License-Identifier: Apache-2.0
"""Keeps the serving certificate trusted by kube-apiserver, without cert-manager.

The CA lives in the Secret `strongroom-serving-ca`, the one place that all replicas agree on; each replica signs its
own leaf in memory, and each puts the CA into the APIService's `caBundle`. All replicas write the same, so none of them
needs to lead. A CA is replaced in three steps, so that no request meets a certificate that kube-apiserver does not
know: the bundle holds old and new; the leaf moves to the new CA one round later; the old one leaves the bundle when
every leaf it signed has ended.
"""

import base64
import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from strongroom.apiserver.certificates import (
    CertificateAuthority,
    Leaf,
    authority_rotation_is_due,
    create_authority,
    predecessor_is_unused,
    read_authority,
    sign_leaf,
    to_pem,
)
from strongroom.kube import paths
from strongroom.kube.client import ApiError, JsonObject, KubeClient, PatchType
from strongroom.model.ids import ObjectKey
from strongroom.model.labels import MANAGED_BY_LABEL

_log = logging.getLogger(__name__)

SECRET_NAME: Final = "strongroom-serving-ca"  # noqa: S105 - the Secret's name
_CERTIFICATE_FIELD: Final = "tls.crt"
_KEY_FIELD: Final = "tls.key"
_PREVIOUS_FIELD: Final = "previous.crt"
_CONFLICT_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class _Authorities:
    """What the Secret holds: the CA that signs, and the one before it while its leaves may live."""

    current: CertificateAuthority
    previous: x509.Certificate | None

    @property
    def trusted(self) -> list[x509.Certificate]:
        certificates = [self.current.certificate]
        return certificates if self.previous is None else [*certificates, self.previous]


class ServingCertificates:
    """This replica's leaf, and its part in keeping CA and APIService. Belongs to one event loop; `clock` is UTC."""

    def __init__(
        self, kube: KubeClient, namespace: str, service_name: str, *, clock: Callable[[], datetime.datetime]
    ) -> None:
        self._kube = kube
        self._secret = ObjectKey(namespace, SECRET_NAME)
        self._names = (
            service_name,
            f"{service_name}.{namespace}",
            f"{service_name}.{namespace}.svc",
            f"{service_name}.{namespace}.svc.cluster.local",
        )
        self._clock = clock
        self._leaf: Leaf | None = None

    async def refresh(self) -> Leaf:
        """One round: see to the CA, to the APIService, and to the leaf. Returns the leaf to serve with from now on.

        Raises ApiError if the CA cannot be read or written; the leaf returned before stays good until its end. An
        APIService that cannot be read or written is logged: the API then stays unavailable until it can.
        """
        now = self._clock()
        authorities = await self._authorities(now)
        published = await self._publish(authorities.trusted)
        if self._leaf is None or _leaf_is_due(self._leaf, authorities, published, now):
            self._leaf = sign_leaf(authorities.current, self._names, now)
        return self._leaf

    async def _authorities(self, now: datetime.datetime) -> _Authorities:
        """Read the Secret; create, replace or tidy it if that is due. Another replica may be first."""
        for _ in range(_CONFLICT_RETRIES):
            try:
                return await self._read_or_write(now)
            except ApiError as error:
                if error.status != 409:
                    raise
        raise ApiError(409, "Conflict")

    async def _read_or_write(self, now: datetime.datetime) -> _Authorities:
        try:
            secret = await self._kube.get(paths.secret(self._secret))
        except ApiError as error:
            if error.status != 404:
                raise
            first = _Authorities(create_authority(now), None)
            await self._kube.create(paths.secrets(self._secret.namespace), self._manifest(first, {}))
            return first
        kept = _parse(secret)
        if kept is None:
            _log.warning("the Secret %s holds no usable CA: it gets a new one", self._secret)
            due = _Authorities(create_authority(now), None)
        elif authority_rotation_is_due(kept.current.certificate, now):
            due = _Authorities(create_authority(now), kept.current.certificate)
        elif kept.previous is not None and predecessor_is_unused(kept.current.certificate, now):
            due = _Authorities(kept.current, None)
        else:
            return kept
        await self._kube.replace(paths.secret(self._secret), self._manifest(due, secret["metadata"]))
        return due

    def _manifest(self, authorities: _Authorities, metadata: JsonObject) -> JsonObject:
        data = {
            _CERTIFICATE_FIELD: authorities.current.certificate_pem(),
            _KEY_FIELD: authorities.current.key_pem(),
        }
        if authorities.previous is not None:
            data[_PREVIOUS_FIELD] = to_pem(authorities.previous)
        own = {
            "name": self._secret.name,
            "namespace": self._secret.namespace,
            "labels": {**(metadata.get("labels") or {}), MANAGED_BY_LABEL: "strongroom"},
        }
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {**metadata, **own},
            "data": {field: base64.b64encode(content).decode() for field, content in data.items()},
        }

    async def _publish(self, trusted: list[x509.Certificate]) -> list[x509.Certificate]:
        """Make the APIService trust exactly these. Returns what it trusted before; nothing if nobody could say."""
        try:
            service = await self._kube.get(paths.API_SERVICE)
            live = service.get("spec", {}).get("caBundle") or ""
            desired = base64.b64encode(b"".join(to_pem(certificate) for certificate in trusted)).decode()
            if live != desired:
                await self._kube.patch(paths.API_SERVICE, PatchType.MERGE, {"spec": {"caBundle": desired}})
        except ApiError as error:
            _log.warning("the APIService of the crypto API could not be given its caBundle: %s", error)
            return []
        try:
            return x509.load_pem_x509_certificates(base64.b64decode(live))
        except ValueError:  # empty, or not ours
            return []


def _leaf_is_due(
    leaf: Leaf, authorities: _Authorities, published: list[x509.Certificate], now: datetime.datetime
) -> bool:
    if leaf.issuer not in authorities.trusted:  # the Secret was replaced by hand: nobody trusts this leaf any more
        return True
    current = authorities.current.certificate
    if leaf.issuer != current:  # the API server must have had a round to learn of the new CA
        return current in published
    return leaf.renewal_is_due(now)


def _parse(secret: dict[str, Any]) -> _Authorities | None:
    """The CA that a Secret holds; None if there is none that can be used."""
    try:
        data = {field: base64.b64decode(text) for field, text in (secret.get("data") or {}).items()}
        current = read_authority(data[_CERTIFICATE_FIELD], data[_KEY_FIELD])
        previous = data.get(_PREVIOUS_FIELD)
        return _Authorities(current, x509.load_pem_x509_certificate(previous) if previous else None)
    except (KeyError, ValueError, TypeError):
        return None
