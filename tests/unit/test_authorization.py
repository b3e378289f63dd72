# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import re
from typing import Any

import pytest

from strongroom.authz import Authorizer
from strongroom.errors import AccessDenied, Reason, StrongroomError
from strongroom.kube.client import ApiError
from strongroom.model.principal import Caller, Permission, Principal, Source
from tests.unit.fakes import Clock, ReviewKube, settle

SHOP = Principal.service_account("shop", "default")
JANE = Principal("jane", ("dev", "system:authenticated"), "7", (("scopes", ("a", "b")),))


def caller(principal: Principal = SHOP, permission: Permission = Permission.USE, namespace: str = "shop") -> Caller:
    return Caller(principal, permission, namespace, Source(via="Controller"))


class Desk:
    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed = allowed
        self.clock = Clock()
        self.kube = ReviewKube(lambda _: self.allowed)
        self.authorizer = Authorizer(self.kube, monotonic=self.clock)  # type: ignore[arg-type]

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [body["spec"] for body in self.kube.bodies("create")]

    async def may(self, principal: Principal = SHOP, *, name: str = "prod", namespace: str = "shop") -> bool:
        return await self.authorizer.check(principal, verb="use", subresource="", name=name, namespace=namespace)


async def test_a_service_account_is_asked_for_with_the_groups_the_api_server_gives_it() -> None:
    desk = Desk()
    await desk.authorizer.require(caller(), "prod")
    assert desk.asked == [
        {
            "user": "system:serviceaccount:shop:default",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"],
            "uid": "",
            "extra": {},
            "resourceAttributes": {
                "group": "crypto.strongroom.dev",
                "resource": "keys",
                "subresource": "",
                "verb": "use",
                "name": "prod",
                "namespace": "shop",
            },
        }
    ]


@pytest.mark.parametrize(
    ("permission", "everywhere", "verb", "subresource", "namespace"),
    [
        (Permission.ENCRYPT, False, "create", "encrypt", "shop"),
        (Permission.DECRYPT, False, "create", "decrypt", "shop"),
        (Permission.DECRYPT, True, "create", "decrypt", ""),
    ],
)
async def test_a_user_is_asked_for_with_everything_the_api_server_said_of_them(
    permission: Permission, everywhere: bool, verb: str, subresource: str, namespace: str
) -> None:
    desk = Desk()
    await desk.authorizer.require(caller(JANE, permission), "prod", all_namespaces=everywhere)
    (spec,) = desk.asked
    assert (spec["user"], spec["groups"], spec["uid"], spec["extra"]) == (
        "jane", ["dev", "system:authenticated"], "7", {"scopes": ["a", "b"]},
    )  # fmt: skip
    attributes = spec["resourceAttributes"]
    assert (attributes["verb"], attributes["subresource"], attributes["namespace"]) == (verb, subresource, namespace)


@pytest.mark.parametrize(("allowed", "seconds"), [(True, 10.0), (False, 1.0)], ids=["yes-10-s", "no-1-s"])
async def test_a_verdict_is_believed_for_a_short_time(allowed: bool, seconds: float) -> None:
    desk = Desk(allowed=allowed)
    assert await desk.may() is allowed
    desk.allowed = not allowed
    desk.clock.advance(seconds - 0.01)
    assert await desk.may() is allowed
    desk.clock.advance(0.02)
    assert await desk.may() is not allowed
    assert len(desk.asked) == 2


async def test_a_verdict_is_for_exactly_what_was_asked() -> None:
    desk = Desk()
    questions = [
        (SHOP, "prod", "shop"),
        (SHOP, "prod", ""),
        (SHOP, "staging", "shop"),
        (SHOP, "prod", "web"),
        (Principal.service_account("shop", "builder"), "prod", "shop"),
        (Principal(SHOP.username, (*SHOP.groups, "admins")), "prod", "shop"),
        (JANE, "prod", "shop"),
        (Principal("jane", JANE.groups, "7", (("scopes", ("a",)),)), "prod", "shop"),
        (Principal("jane", JANE.groups, "8", JANE.extra), "prod", "shop"),
    ]
    for principal, name, namespace in questions:
        await desk.may(principal, name=name, namespace=namespace)
    assert len(desk.asked) == len(questions)


async def test_equal_questions_at_a_time_are_one_review() -> None:
    desk = Desk()
    desk.kube.gate = asyncio.Event()
    asking = [asyncio.create_task(desk.may()) for _ in range(50)]
    await settle()
    desk.kube.gate.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert len(desk.asked) == 1


async def test_who_gives_up_waiting_does_not_take_the_answer_from_the_others() -> None:
    desk = Desk()
    desk.kube.gate = asyncio.Event()
    first, second = (asyncio.create_task(desk.may()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    desk.kube.gate.set()
    assert await second is True
    assert first.cancelled()
    assert len(desk.asked) == 1


@pytest.mark.parametrize("status", [0, 403, 429, 500])
async def test_no_verdict_is_a_refusal_and_is_not_remembered(status: int) -> None:
    desk = Desk()
    desk.kube.answer("create", ApiError(status, "Whatever"))
    with pytest.raises(StrongroomError) as caught:
        await desk.authorizer.require(caller(), "prod")
    assert caught.value.reason is Reason.UNAVAILABLE
    await desk.authorizer.require(caller(), "prod")


@pytest.mark.parametrize("answer", [{}, {"status": {}}, {"status": {"denied": True}}], ids=["empty", "no", "denied"])
async def test_an_answer_without_a_yes_is_a_no(answer: dict[str, Any]) -> None:
    desk = Desk()
    desk.kube.answer("create", answer)
    with pytest.raises(AccessDenied):
        await desk.authorizer.require(caller(), "prod")


async def denial(*, account: str = "default", namespace: str = "shop", key: str = "prod") -> str:
    with pytest.raises(AccessDenied) as caught:
        await Desk(allowed=False).authorizer.require(
            caller(Principal.service_account(namespace, account), namespace=namespace), key
        )
    return str(caught.value)


def granted(message: str) -> list[dict[str, Any]]:
    """The manifest in the command, once a shell has taken the quotes away."""
    match = re.search(r"To grant it: echo '([^']*)' \| kubectl apply -f -$", message)
    assert match, message
    items: list[dict[str, Any]] = json.loads(match[1])["items"]
    return items


@pytest.mark.parametrize(
    ("account", "namespace", "key"),
    [
        pytest.param("default", "shop", "prod", id="usual"),
        pytest.param("a" * 253, "n" * 63, "k" * 63, id="longest-names"),
        pytest.param("build.bot", "shop", "prod.eu", id="dots"),
    ],
)
async def test_a_denial_holds_a_command_that_would_grant_it(account: str, namespace: str, key: str) -> None:
    role, binding = granted(await denial(account=account, namespace=namespace, key=key))
    assert (role["apiVersion"], role["kind"]) == ("rbac.authorization.k8s.io/v1", "Role")
    assert role["rules"] == [
        {"apiGroups": ["crypto.strongroom.dev"], "resources": ["keys"], "resourceNames": [key], "verbs": ["use"]}
    ]
    assert (binding["apiVersion"], binding["kind"]) == ("rbac.authorization.k8s.io/v1", "RoleBinding")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"],
    }  # fmt: skip
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    for item in (role, binding):
        assert item["metadata"]["namespace"] == namespace
        # RBAC takes any name that is one segment of a path, however long.
        assert not set("/%") & set(item["metadata"]["name"])


async def test_granting_one_account_takes_nothing_from_another() -> None:
    """kubectl apply replaces the subjects of a binding of the same name."""
    _, one = granted(await denial(account="default"))
    _, other = granted(await denial(account="builder"))
    assert one["metadata"]["name"] != other["metadata"]["name"]


async def test_a_user_of_the_api_is_told_what_is_missing_without_a_command() -> None:
    desk = Desk(allowed=False)
    with pytest.raises(AccessDenied, match=r"jane may not create keys/encrypt 'prod' of crypto\.strongroom\.dev"):
        await desk.authorizer.require(caller(JANE, Permission.ENCRYPT), "prod")
    with pytest.raises(AccessDenied, match="in all namespaces, which scope Cluster needs") as caught:
        await desk.authorizer.require(caller(JANE, Permission.ENCRYPT), "prod", all_namespaces=True)
    assert "kubectl" not in str(caught.value)
