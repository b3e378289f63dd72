# SPDX-License-Identifier: Apache-2.0
"""Writes status, only when it differs from what stands there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.kube.client import METADATA_ONLY, ApiError, KubeClient, PatchType
from strongroom.model import conditions
from strongroom.model.conditions import Condition


@dataclass(frozen=True, slots=True)
class Written:
    """A status as it now stands."""

    status: Mapping[str, Any]
    resource_version: int
    generation: int
    """Of the object under it: newer than the one judged if its spec was changed meanwhile."""


class StatusWriter:
    """One JSON Patch a write. `on_write` is told the kind."""

    def __init__(self, kube: KubeClient, *, on_write: Callable[[str], None]) -> None:
        self._kube = kube
        self._on_write = on_write

    async def write(
        self,
        kind: str,
        path: str,
        *,
        uid: str,
        old: Mapping[str, Any],
        fields: Mapping[str, Any],
        new_conditions: Sequence[Condition],
        resource_version: str = "",
    ) -> Written | None:
        """Replace the status by `fields` and the conditions; fields that are None are left out.

        Returns what was written, or None if nothing differs or the object is gone. With `resource_version` the
        write happens only onto that very version: ApiError 409 otherwise. Raises ApiError.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        status = {key: value for key, value in fields.items() if value is not None}
        status["conditions"] = conditions.merge(old.get("conditions") or (), new_conditions, now)
        if status == old:
            return None
        tests = [{"op": "test", "path": "/metadata/uid", "value": uid}]
        if resource_version:
            tests.append({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version})
        try:
            answer = await self._kube.patch(
                f"{path}/status",
                PatchType.JSON,
                [*tests, {"op": "add", "path": "/status", "value": status}],
                accept=METADATA_ONLY,
            )
        except ApiError as error:
            if error.test_failed:
                if resource_version:
                    raise ApiError(409, "Conflict") from error
                return None
            if error.status == 404:
                return None
            raise
        self._on_write(kind)
        metadata = answer["metadata"]
        return Written(status, int(metadata["resourceVersion"]), metadata["generation"])
