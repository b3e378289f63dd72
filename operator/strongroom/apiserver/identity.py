# SPDX-License-Identifier: Apache-2.0
"""Who calls: the front proxy by its certificate, the user by the headers it sends."""

import asyncio
import ipaddress
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from multidict import CIMultiDictProxy

from strongroom.apiserver.frontproxy import EXTRA_PREFIX, GROUP_HEADER, UID_HEADER, USER_HEADER, FrontProxy
from strongroom.model.principal import Principal, Source

_CLAIM_CHARACTERS: Final = 256
"""What is kept of a header that goes to the audit record as the sender's claim."""


class Unauthenticated(Exception):
    """Nobody who may say so has said who calls."""


def require_front_proxy(transport: asyncio.BaseTransport | None, proxy: FrontProxy) -> None:
    """Return if the peer showed a certificate of the front proxy's CA and bears one of its names.

    The TLS layer has verified the certificate, by the CA in force at the handshake. Raises Unauthenticated.
    """
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    names = [
        value
        for attributes in (certificate or {}).get("subject", ())
        for attribute, value in attributes
        if attribute == "commonName"
    ]
    if len(names) != 1 or names[0] not in proxy.allowed_names:
        raise Unauthenticated


def require_authority_in_force(transport: asyncio.BaseTransport | None, proxy: FrontProxy) -> None:
    """Return if a CA of `proxy` signed the peer's certificate itself: for connections from before the last change.

    Through an intermediate is not enough: such a peer has to connect again. Raises Unauthenticated.
    """
    if transport is None:
        raise Unauthenticated
    certificate = x509.load_der_x509_certificate(transport.get_extra_info("ssl_object").getpeercert(binary_form=True))
    if not any(_signed(authority, certificate) for authority in proxy.authorities()):
        raise Unauthenticated


def _signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):  # another key, a kind of key that signs nothing, another name
        return False
    return True


def principal(headers: CIMultiDictProxy[str], proxy: FrontProxy) -> Principal:
    """The user as kube-apiserver authenticated it; call `require_front_proxy` before.

    Membership of system:masters means nothing here: kube-apiserver's own probes claim it. Raises Unauthenticated.
    """
    users = headers.getall(USER_HEADER, [])
    if len(users) != 1 or not users[0]:
        raise Unauthenticated
    try:
        return Principal(
            username=_text(users[0]),
            groups=tuple(map(_text, headers.getall(GROUP_HEADER, []))) if GROUP_HEADER in proxy.headers else (),
            uid=_text(headers.get(UID_HEADER, "")) if UID_HEADER in proxy.headers else "",
            extra=_extra(headers) if EXTRA_PREFIX in proxy.headers else (),
        )
    except UnicodeError:
        raise Unauthenticated from None


def _extra(headers: CIMultiDictProxy[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Extra attributes; their names arrive percent-encoded, in a case that HTTP does not keep."""
    extra: dict[str, list[str]] = {}
    for name, value in headers.items():
        if name.lower().startswith(EXTRA_PREFIX):
            key = unquote_to_bytes(name.lower().removeprefix(EXTRA_PREFIX)).decode()
            extra.setdefault(key, []).append(_text(value))
    return tuple((key, tuple(values)) for key, values in sorted(extra.items()))


def _text(value: str) -> str:
    """A header's value, if it is UTF-8: aiohttp passes other bytes on as lone surrogates. Raises UnicodeError."""
    value.encode()
    return value


def source(request: web.Request) -> Source:
    """Where the request came from, for the audit record alone: all of it can be chosen by the client, but for the
    last address of X-Forwarded-For, which kube-apiserver adds."""
    forwarded = request.headers.getall("X-Forwarded-For", [""])[-1].rpartition(",")[2].strip()
    try:
        address = str(ipaddress.ip_address(forwarded))
    except ValueError:
        address = request.remote or ""
    return Source(
        via="API",
        address=address,
        user_agent=_claim(request.headers.get("User-Agent", "")),
        audit_id=_claim(request.headers.get("Audit-ID", "")),
    )


def _claim(text: str) -> str:
    return text.encode(errors="replace").decode()[:_CLAIM_CHARACTERS]
