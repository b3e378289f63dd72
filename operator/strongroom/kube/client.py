# SPDX-License-Identifier: Apache-2.0
"""One aiohttp session to the API server, with typed errors that hold nothing secret."""

import re
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum, unique
from typing import Any, Final

import aiohttp
import msgspec

from strongroom.kube.credentials import Credentials
from strongroom.model.labels import FIELD_MANAGER, OPERATOR_POLICY

JsonObject = dict[str, Any]

PAGE_SIZE: Final = 500
"""Objects a LIST page; kube-apiserver's own clients use the same."""
_REQUEST_TIMEOUT_SECONDS: Final = 30.0
_LONGEST_RETRY_AFTER_SECONDS: Final = 60.0
_REASON: Final = re.compile(r"[A-Za-z]{1,64}")
_FIELD: Final = re.compile(r"[A-Za-z0-9_.\[\]/~-]{1,253}")
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Accept headers by which the API server answers without spec, data or status."""


@unique
class PatchType(StrEnum):
    """Content types of a PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """The API server refused, or could not be asked (`status` 0).

    Holds the code, the machine-readable reason and the paths of the fields at fault; never the message, because the
    API server's own messages can quote what was sent (an invalid dockerconfigjson does).
    `by_policy`: the admission policy for the operator's own writes refused; `by_rbac`: its permissions do not suffice;
    `test_failed`: a `test` of a JSON Patch did not hold. `retry_after` is in seconds, at most 60.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        fields: tuple[str, ...] = (),
        retry_after: float | None = None,
        by_policy: bool = False,
        by_rbac: bool = False,
        test_failed: bool = False,
    ) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.fields = fields
        self.retry_after = retry_after
        self.by_policy = by_policy
        self.by_rbac = by_rbac
        self.test_failed = test_failed

    def __str__(self) -> str:
        where = f" ({', '.join(self.fields)})" if self.fields else ""
        return f"the API server answered {self.status or 'nothing'} {self.reason}{where}"

    @property
    def transient(self) -> bool:
        """Whether the same request may pass later without anyone changing anything."""
        return self.status == 0 or self.status in (408, 429) or self.status >= 500


class KubeClient:
    """The operator's only way to the API server, but for Kopf's watches. Belongs to one event loop.

    Every call raises ApiError. No call retries: who calls knows whether another try helps.
    """

    def __init__(self, credentials: Credentials, *, connections: int) -> None:
        self._credentials = credentials
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=credentials.ssl_context),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS),
            headers={"User-Agent": "strongroom", "Accept": "application/json"},
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str, *, accept: str | None = None, params: Mapping[str, str] | None = None) -> JsonObject:
        """GET one object or list page."""
        return await self._request("GET", path, accept=accept, params=params)

    async def create(
        self, path: str, body: JsonObject, *, accept: str | None = None, dry_run: bool = False
    ) -> JsonObject:
        """POST to a collection, as our field manager. A dry run is admitted or refused, and nothing is made."""
        params = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return await self._request("POST", path, body=body, accept=accept, params=params)

    async def replace(self, path: str, body: JsonObject, *, accept: str | None = None) -> JsonObject:
        """PUT a whole object, as our field manager; its uid and resourceVersion, if given, are preconditions (409)."""
        return await self._request("PUT", path, body=body, accept=accept, params={"fieldManager": FIELD_MANAGER})

    async def patch(self, path: str, kind: PatchType, body: Any, *, accept: str | None = None) -> JsonObject:
        """PATCH as our field manager."""
        return await self._request(
            "PATCH",
            path,
            body=body,
            content_type=kind.value,
            accept=accept,
            params={"fieldManager": FIELD_MANAGER},
        )

    async def list_all(
        self, path: str, *, accept: str | None = None, label_selector: str | None = None
    ) -> AsyncIterator[tuple[list[JsonObject], int]]:
        """All pages of a collection: (items, resourceVersion of the list). One consistent snapshot."""
        params = {"limit": str(PAGE_SIZE)}
        if label_selector:
            params["labelSelector"] = label_selector
        while True:
            page = await self._request("GET", path, accept=accept, params=params)
            metadata = page.get("metadata", {})
            yield page.get("items") or [], int(metadata.get("resourceVersion") or 0)
            if not metadata.get("continue"):
                return
            params["continue"] = metadata["continue"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        accept: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> JsonObject:
        headers = {"Content-Type": content_type} if body is not None else {}
        if accept:
            headers["Accept"] = accept
        payload = msgspec.json.encode(body) if body is not None else None
        try:
            if authorization := self._credentials.authorization():
                headers["Authorization"] = authorization
            async with self._session.request(
                method, self._credentials.server + path, data=payload, headers=headers, params=params
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, type(error).__name__) from None
        if response.status >= 400:
            raise _error(response, content)
        try:
            answer: JsonObject = msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise ApiError(0, "InvalidAnswer") from None
        return answer


class _Cause(msgspec.Struct):
    field: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    """What is read of a Kubernetes Status."""

    reason: str = ""
    message: str = ""
    details: _Details | None = None


def _error(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    """Keep what a program may act on; drop every sentence. A webhook can put any text into reason and fields."""
    try:
        status = msgspec.json.decode(content, type=_Status)
    except msgspec.MsgspecError:
        status = _Status()
    causes = status.details.causes if status.details else []
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(
        status=response.status,
        reason=status.reason if _REASON.fullmatch(status.reason) else str(response.reason or "Unknown"),
        fields=tuple(cause.field for cause in causes if _FIELD.fullmatch(cause.field)),
        retry_after=min(float(retry_after), _LONGEST_RETRY_AFTER_SECONDS) if retry_after.isdecimal() else None,
        by_policy=f"ValidatingAdmissionPolicy '{OPERATOR_POLICY}'" in status.message,
        by_rbac=response.status == 403 and "is forbidden: User " in status.message,
        test_failed=response.status == 422 and not causes and "denied" not in status.message,
    )
