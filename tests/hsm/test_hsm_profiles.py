# SPDX-License-Identifier: Apache-2.0
"""Every profile against a token with the habits that it names: SoftHSM does the work, the shim plays the vendor."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from strongroom import profiles
from strongroom.errors import InvalidCiphertext, Reason, StrongroomError
from strongroom.hsm.api import SealItem, Share, Token, TokenState
from strongroom.hsm.cryptoki import CKM_AES_CBC, CKM_SHA256_HMAC
from strongroom.model.keys import KeySpec
from strongroom.model.plaintext import Plaintext
from strongroom.profiles import Aead, IvSource, KeyTemplate, Marking, Profile
from testbed.hsmkeys import AAD, KeyInUse, label, make_key, new_ref
from testbed.shim import Habits, Shim
from testbed.softhsm import SoftHsmToken

pytestmark = pytest.mark.hsm

OpenToken = Callable[..., Awaitable[Token]]

_CKM_AES_GCM = 0x1087
_LABEL_BYTES = 40
_MADE_BY_TOKEN = [IvSource.ZERO_BUFFER, IvSource.PREPENDED, IvSource.APPENDED]


def _habits(profile: Profile, hsm: SoftHsmToken) -> Habits:
    """Those of the profile's vendor."""
    small, made = profile.marking is Marking.LABEL, profile.iv_source is not IvSource.HOST
    no_gcm = profile.aead is Aead.CBC_HMAC or profile.gcm_mechanism != _CKM_AES_GCM
    return Habits(
        hide=(_CKM_AES_GCM,) if no_gcm else (),
        gcm_mechanism=profile.gcm_mechanism if profile.aead is Aead.GCM else None,
        gcm_iv=profile.iv_source.value if made else None,
        gcm_iv_bytes=profile.iv_bytes if made else None,
        read_write_only=not profile.read_only_sessions,
        login_pin=None if profile.login else hsm.pin_file.read_text(),
        max_id=0 if small else None,
        max_label=_LABEL_BYTES if small else None,
        typed_hmac=profile.key_template is KeyTemplate.TYPED_HMAC,
        cloud_kms=profile.key_template is KeyTemplate.CLOUD_KMS,
    )


@pytest.fixture
def open_as(shim: Shim, new_token: SoftHsmToken, open_token: OpenToken) -> Callable[..., Awaitable[Token]]:
    """Opens the test's own token with a profile, and with habits that are the profile's but for these changes."""

    async def start(name: str, *, unlike: dict[str, Any] | None = None, **changed: Any) -> Token:
        profile = profiles.load(name, changed.get("profileChanges"))
        shim.behave(replace(_habits(profile, new_token), **(unlike or {})))
        if not profile.login:
            changed["pinFile"] = ""
        return await open_token(profile=name, **changed)

    return start


@pytest.fixture(params=profiles.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_keys_are_made_found_and_proved(open_as: OpenToken, open_token: OpenToken, name: str) -> None:
    token = await open_as(name)
    assert token.available, token.problem
    refs = [new_ref(), new_ref()]
    for ref in refs:
        material = await token.generate(ref, label(), KeySpec.AES_256)
        assert (material.ref, material.spec, material.never_extractable) == (ref, KeySpec.AES_256, True)
    assert {material.ref for material in await token.find_all()} == set(refs)
    (found,) = await token.find(refs[0].key_id)
    assert await token.verify(refs[0]) == found
    with pytest.raises(StrongroomError) as caught:
        await token.generate(refs[0], label(), KeySpec.AES_256)
    assert caught.value.reason is Reason.KEY_EXISTS
    assert len(await token.find_all()) == 2
    assert token.statistics.worker_losses == 0


async def test_values_come_back_and_altered_ones_do_not(open_as: OpenToken, shim: Shim, name: str) -> None:
    token = await open_as(name)
    key = await make_key(token, KeySpec.AES_256)
    for size in (0, 1, 15, 16, 1023, 1024, 1025, 4096):
        plaintext = bytes(index % 251 for index in range(size))
        item = await key.seal(plaintext)
        assert len(item.nonce) == key.algorithm.nonce_bytes
        assert len(item.body) == key.algorithm.ciphertext_bytes(size) + key.algorithm.tag_bytes
        assert await key.open(item) == plaintext
        for altered in (
            replace(item, body=item.body[:-1] + bytes([item.body[-1] ^ 1])),
            replace(item, body=bytes([item.body[0] ^ 1]) + item.body[1:]),
            replace(item, nonce=bytes([item.nonce[0] ^ 1]) + item.nonce[1:]),
            replace(item, aad=item.aad + b"!"),
            replace(item, body=item.body[16:]),
            replace(item, body=b""),
        ):
            with pytest.raises(InvalidCiphertext):
                await key.open(altered)
        assert await key.open(item) == plaintext
    assert token.statistics.worker_losses == 0


async def test_no_initial_vector_comes_twice(open_as: OpenToken, name: str) -> None:
    token = await open_as(name)
    key = await make_key(token, KeySpec.AES_256)
    items = [SealItem(Plaintext(b""), AAD)] * 64
    batches = [await token.seal(key.ref, key.algorithm, items, share=Share.API) for _ in range(4)]
    assert len({sealed.nonce for batch in batches for sealed in batch}) == 256


async def test_what_one_worker_sealed_the_next_one_opens(open_as: OpenToken, open_token: OpenToken, name: str) -> None:
    first = await open_as(name)
    key = await make_key(first, KeySpec.AES_256)
    item = await key.seal(b"value")
    second = await open_as(name)
    assert await KeyInUse(second, key.ref, key.algorithm, b"").open(item) == b"value"


@pytest.mark.parametrize("source", _MADE_BY_TOKEN)
async def test_an_initial_vector_of_zeros_is_refused(open_as: OpenToken, source: IvSource) -> None:
    token = await open_as("generic", profileChanges={"ivSource": source.value}, unlike={"gcm_iv_fault": "zeros"})
    with pytest.raises(StrongroomError) as caught:
        await token.generate(new_ref(), label(), KeySpec.AES_256)
    assert caught.value.reason is Reason.HSM_ERROR
    assert token.available


@pytest.mark.parametrize("source", _MADE_BY_TOKEN)
async def test_an_initial_vector_that_comes_again_is_refused(open_as: OpenToken, shim: Shim, source: IvSource) -> None:
    token = await open_as("generic", profileChanges={"ivSource": source.value}, sessions=1)
    key = await make_key(token, KeySpec.AES_256)
    shim.behave(Habits(gcm_iv=source.value, gcm_iv_fault="same"))
    item = await key.seal(b"value")
    for _ in range(2):
        with pytest.raises(StrongroomError) as caught:
            await key.seal(b"value")
        assert caught.value.reason is Reason.HSM_ERROR
    assert await key.open(item) == b"value"
    assert token.available


@pytest.mark.parametrize("actual", _MADE_BY_TOKEN)
@pytest.mark.parametrize("assumed", list(IvSource))
async def test_a_profile_for_another_habit_makes_no_keys_and_no_damage(
    open_as: OpenToken, shim: Shim, assumed: IvSource, actual: IvSource
) -> None:
    token = await open_as("generic", profileChanges={"ivSource": assumed.value}, unlike={"gcm_iv": actual.value})
    if assumed is actual:
        await make_key(token, KeySpec.AES_256)
        return
    with pytest.raises(StrongroomError) as caught:
        await token.generate(new_ref(), label(), KeySpec.AES_256)
    assert caught.value.reason is Reason.HSM_ERROR
    assert token.available
    assert token.statistics.worker_losses == 0


async def test_a_token_without_gcm_is_misconfigured_for_a_profile_with_it(open_as: OpenToken) -> None:
    token = await open_as("generic", unlike={"hide": (_CKM_AES_GCM,)})
    assert token.state is TokenState.MISCONFIGURED


@pytest.mark.parametrize("missing", [CKM_AES_CBC, CKM_SHA256_HMAC])
async def test_a_token_without_cbc_or_hmac_is_misconfigured_for_a_profile_with_both(
    open_as: OpenToken, missing: int
) -> None:
    token = await open_as("yubihsm2", unlike={"hide": (_CKM_AES_GCM, missing)})
    assert token.state is TokenState.MISCONFIGURED


async def test_without_login_no_pin_is_read_and_none_is_given(open_as: OpenToken, shim: Shim) -> None:
    token = await open_as("google-cloud-kms")
    assert token.available, token.problem
    assert (shim.calls("C_Login"), token.statistics.logins) == (0, 0)


@pytest.mark.parametrize(
    ("habits", "changes", "sessions"),
    [
        ({}, {}, 16),
        ({"max_sessions": 5}, {}, 4),
        ({"max_rw_sessions": 5}, {}, 16),  # the values' are read-only ones
        ({"max_rw_sessions": 5}, {"readOnlySessions": False}, 4),
        ({"max_sessions": 1}, {}, 1),  # the token itself is to say no
        ({"session_limit": 4}, {}, 3),
        ({"session_limit": 2}, {}, 1),
        ({"session_limit": 4, "max_sessions": 100}, {}, 3),
    ],
)
async def test_as_many_sessions_are_opened_as_the_token_allows(
    open_as: OpenToken, habits: dict[str, int], changes: dict[str, Any], sessions: int
) -> None:
    token = await open_as("generic", profileChanges=changes, unlike=habits)
    assert token.available, token.problem
    assert token.statistics.sessions == sessions
    key = await make_key(token, KeySpec.AES_256)
    assert await key.open(await key.seal(b"value")) == b"value"


async def test_a_token_that_gives_no_second_session_is_away_and_says_why(open_as: OpenToken, shim: Shim) -> None:
    token = await open_as("generic", unlike={"session_limit": 1})
    assert token.state is TokenState.UNAVAILABLE
    assert token.problem is not None
    assert token.problem.ckr == "CKR_SESSION_COUNT"
