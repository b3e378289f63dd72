# SPDX-License-Identifier: Apache-2.0
"""Every refusal as a Kubernetes `Status`, so that kubectl and client libraries show and understand it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from aiohttp import web

from strongroom.errors import Reason, StrongroomError
from strongroom.model.labels import CRYPTO_GROUP, KEYS_RESOURCE

RETRY_AFTER_SECONDS: Final = 1
"""Sent with 429 and 503. kubectl then repeats the request by itself, up to ten times at this distance."""

_HTTP_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
}
"""Kubernetes' own words for what HTTP itself refuses."""

_REMEDY: Final = "Remedy"
"""Reason of the cause that repeats what the message says to do, so that a client can show the two apart."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `details.causes`: which field, empty if none, and what about it."""

    reason: str
    message: str
    field: str


class InvalidField(StrongroomError):
    """A field of the request is missing, of the wrong shape or not allowed. The text names it and never its value."""

    def __init__(self, field: str, message: str, *, reason: str = "FieldValueInvalid", hint: str = "") -> None:
        super().__init__(Reason.INVALID_REQUEST, f"{field}: {message}", hint=hint)
        self.cause = Cause(reason, message, field)


class HttpRefusal(Exception):
    """HTTP itself refuses the request: wrong method, media type, size. `code` is one of those with a reason above."""

    def __init__(self, code: int, message: str, *, allow: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.allow = tuple(allow)


def of_error(error: StrongroomError, *, key_name: str) -> web.Response:
    """The answer to a request that an operation refused."""
    causes = [error.cause] if isinstance(error, InvalidField) else []
    if error.hint:
        causes.append(Cause(_REMEDY, error.hint, field=""))
    return _failure(error.reason.http_status, error.reason.value, str(error), key_name=key_name, causes=causes)


def of_refusal(refusal: HttpRefusal, *, key_name: str = "") -> web.Response:
    """The answer to a request that HTTP itself refuses."""
    response = _failure(refusal.code, _HTTP_REASONS[refusal.code], refusal.message, key_name=key_name)
    if refusal.allow:
        response.headers["Allow"] = ", ".join(refusal.allow)
    return response


def _failure(code: int, reason: str, message: str, *, key_name: str, causes: Sequence[Cause] = ()) -> web.Response:
    details: dict[str, Any] = {"group": CRYPTO_GROUP, "kind": KEYS_RESOURCE}
    if key_name:
        details["name"] = key_name
    if causes:
        details["causes"] = [asdict(cause) for cause in causes]
    headers = {}
    if code in (429, 503):
        details["retryAfterSeconds"] = RETRY_AFTER_SECONDS
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }
    return web.Response(status=code, body=json.dumps(body).encode(), content_type="application/json", headers=headers)
