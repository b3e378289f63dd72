# SPDX-License-Identifier: Apache-2.0
"""Reconciling and the API share a token's sessions, and keys are managed beside both."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from strongroom.hsm.api import Share, Token
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse, label, new_ref
from testbed.shim import Shim

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]
MakeKey = Callable[..., Awaitable[KeyInUse]]
WaitUntil = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.mark.parametrize(("many", "one"), [(Share.RECONCILE, Share.API), (Share.API, Share.RECONCILE)])
async def test_neither_share_waits_for_the_others_backlog(
    open_token: OpenToken, make_key: MakeKey, wait_until: WaitUntil, many: Share, one: Share
) -> None:
    token = await open_token(sessions=1)
    key = await make_key(token)
    item = await key.seal(b"value")
    order: list[Share] = []

    async def use(share: Share) -> None:
        assert await key.open(item, share=share) == b"value"
        order.append(share)

    backlog = [asyncio.create_task(use(many)) for _ in range(300)]
    await wait_until(lambda: token.statistics.waiting[many.value] > 200)
    done = len(order)
    await asyncio.gather(*(use(one) for _ in range(3)))
    assert len(order) - done < 20, "the three waited for the backlog"
    await asyncio.gather(*backlog)
    assert (token.statistics.in_flight, set(token.statistics.waiting.values())) == (0, {0})


async def test_finding_and_making_keys_takes_no_session_from_values(
    shim: Shim, open_token: OpenToken, make_key: MakeKey, wait_until: WaitUntil
) -> None:
    token = await open_token(sessions=1)
    key = await make_key(token)
    item = await key.seal(b"value")
    calls = shim.calls("C_FindObjectsInit")
    shim.set("C_GenerateKey", hangs=True)
    ref = new_ref()
    generation = asyncio.create_task(token.generate(ref, label(), KeySpec.AES_256))
    await wait_until(lambda: shim.calls("C_FindObjectsInit") > calls)
    search = asyncio.create_task(token.find(ref.key_id))
    for share in Share:
        assert await key.open(item, share=share) == b"value"
    await wait_until(lambda: token.statistics.waiting["management"] == 1)
    assert not search.done()
    shim.clear("C_GenerateKey")
    material = await generation
    assert material.ref == ref
    assert await search == [material]
