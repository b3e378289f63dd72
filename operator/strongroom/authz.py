# SPDX-License-Identifier: Apache-2.0
"""Who may use which key: Kubernetes RBAC, asked by SubjectAccessReview."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from strongroom.errors import AccessDenied, Reason, StrongroomError
from strongroom.kube import paths
from strongroom.kube.client import ApiError, JsonObject, KubeClient
from strongroom.model.labels import CRYPTO_GROUP, KEYS_RESOURCE
from strongroom.model.principal import Caller, Permission, Principal

CACHE_SECONDS: Final = 10.0
"""How long a yes is believed: as long as Kubernetes' own extension servers do."""
DENIED_CACHE_SECONDS: Final = 1.0
"""How long a no is believed: short enough that a grant works at once, and a denied backlog is one review a second."""
_CACHE_LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Question:
    principal: Principal
    verb: str
    subresource: str
    name: str
    namespace: str


class Authorizer:
    """Asks the API server. Verdicts are cached for a short time; equal questions at a time are one review."""

    def __init__(self, kube: KubeClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._monotonic = monotonic
        self._verdicts: dict[_Question, tuple[bool, float]] = {}
        self._asking: dict[_Question, asyncio.Task[bool]] = {}

    async def require(self, caller: Caller, key_name: str, *, all_namespaces: bool = False) -> None:
        """Return if the caller may; raise AccessDenied if not, StrongroomError (Unavailable) if nobody could say.

        `all_namespaces`: a value of scope Cluster is usable everywhere, so the permission must hold everywhere.
        """
        permission = caller.permission
        namespace = "" if all_namespaces else caller.namespace
        if not await self.check(
            caller.principal,
            verb=permission.verb,
            subresource=permission.subresource,
            name=key_name,
            namespace=namespace,
        ):
            raise _denied(caller, key_name, namespace)

    async def check(self, principal: Principal, *, verb: str, subresource: str, name: str, namespace: str) -> bool:
        """RBAC's verdict on `keys` of the crypto group. Empty namespace: all namespaces; empty name: all keys.

        Raises StrongroomError (Unavailable) if the API server gives no verdict.
        """
        question = _Question(principal, verb, subresource, name, namespace)
        allowed, until = self._verdicts.get(question, (False, 0.0))
        if until > self._monotonic():
            return allowed
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._review(question))
            self._asking[question] = task
            task.add_done_callback(lambda _: self._asking.pop(question, None))
        return await asyncio.shield(task)

    async def _review(self, question: _Question) -> bool:
        try:
            answer = await self._kube.create(paths.SUBJECT_ACCESS_REVIEWS, _review_body(question))
        except ApiError as error:
            raise StrongroomError(
                Reason.UNAVAILABLE, f"permission could not be checked: {error}", hint="This is retried"
            ) from error
        allowed = bool(answer.get("status", {}).get("allowed"))
        if len(self._verdicts) >= _CACHE_LIMIT:
            self._verdicts.clear()
        self._verdicts[question] = allowed, self._monotonic() + (CACHE_SECONDS if allowed else DENIED_CACHE_SECONDS)
        return allowed


def _review_body(question: _Question) -> JsonObject:
    attributes = {
        "group": CRYPTO_GROUP,
        "resource": KEYS_RESOURCE,
        "subresource": question.subresource,
        "verb": question.verb,
        "name": question.name,
        "namespace": question.namespace,
    }
    principal = question.principal
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": principal.username,
            "groups": list(principal.groups),
            "uid": principal.uid,
            "extra": {key: list(values) for key, values in principal.extra},
            "resourceAttributes": attributes,
        },
    }


def _denied(caller: Caller, key_name: str, namespace: str) -> AccessDenied:
    permission = caller.permission
    what = f"{KEYS_RESOURCE}/{permission.subresource}" if permission.subresource else KEYS_RESOURCE
    where = f"in namespace {namespace!r}" if namespace else "in all namespaces, which scope Cluster needs"
    return AccessDenied(
        who=caller.principal.username,
        may_not=f"{permission.verb} {what} {key_name!r} of {CRYPTO_GROUP} {where}",
        grant=_grant(caller.principal, key_name, namespace) if permission is Permission.USE and namespace else "",
    )


def _grant(principal: Principal, key_name: str, namespace: str) -> str:
    """One pasteable command for one key in one namespace. Names are DNS names, so quoting is safe. kubectl's own
    `create role` refuses the verb `use` for resources it does not know."""
    name = f"strongroom-use-{key_name}"
    account = principal.username.rpartition(":")[2]
    rbac = "rbac.authorization.k8s.io"
    role = {
        "apiVersion": f"{rbac}/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [
            {"apiGroups": [CRYPTO_GROUP], "resources": [KEYS_RESOURCE], "resourceNames": [key_name], "verbs": ["use"]}
        ],
    }
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        # A binding an account: apply replaces the subjects of one that exists.
        "metadata": {"name": f"{name}:{account}", "namespace": namespace},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]}, separators=(",", ":"))
    return f"echo '{manifest}' | kubectl apply -f -"
