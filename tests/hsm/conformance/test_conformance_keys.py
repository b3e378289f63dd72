# SPDX-License-Identifier: Apache-2.0
"""Every token: keys are generated safely, found completely, and refused if they do not stay where they are."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import Token
from strongroom.model.ids import KeyVersionRef
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse, label, make_key, new_ref
from testbed.pkcs11token import Pkcs11Token

pytestmark = pytest.mark.hsm

_SPECS = pytest.mark.parametrize("spec", list(KeySpec))


@_SPECS
async def test_a_generated_key_is_found_as_it_was_made_and_passes_verification(
    hsm: Token, keeps_keys: bool, spec: KeySpec
) -> None:
    key = await make_key(hsm, spec, refused=not keeps_keys)
    (found,) = await hsm.find(key.ref.key_id)
    assert (found.ref, found.label, found.spec) == (key.ref, label(), spec)
    assert [each.ref for each in await hsm.find_all()] == [key.ref]
    assert found.public_key == key.public_key
    if spec.asymmetric:
        public = load_der_public_key(found.public_key)
        assert isinstance(public, RSAPublicKey)
        assert (public.key_size, public.public_numbers().e) == (int(spec.removeprefix("RSA_")), 65537)
    if keeps_keys:
        assert found.never_extractable
        verified = await hsm.verify(key.ref)
        assert verified == found
        assert [each.ref for each in await hsm.find_all()] == [key.ref], "verifying leaves nothing behind"


async def test_a_token_that_gives_its_keys_away_is_found_out_by_what_it_does(hsm: Token, keeps_keys: bool) -> None:
    """NSS: CKA_EXTRACTABLE is false, and it wraps the key all the same."""
    ref = new_ref()
    if keeps_keys:
        await hsm.generate(ref, label(), KeySpec.AES_256)
        return
    for attempt in (hsm.generate(ref, label(), KeySpec.AES_256), hsm.verify(ref)):
        with pytest.raises(StrongroomError, match="it can be wrapped") as caught:
            await attempt
        assert caught.value.reason is Reason.HSM_ERROR
    assert hsm.available
    assert len(await hsm.find(ref.key_id)) == 1, "nothing is deleted"


async def test_the_token_describes_itself(hsm: Token, new_token: Pkcs11Token, token_kind: str) -> None:
    info = await hsm.info()
    manufacturer = {"softhsm": "SoftHSM project", "kryoptic": "Kryoptic Project", "nss": "Mozilla Foundation"}
    assert info.manufacturer == manufacturer[token_kind]
    assert info.label == new_token.label
    assert info.model
    assert info.serial


async def test_versions_are_found_together_and_others_not(hsm: Token, keeps_keys: bool) -> None:
    first = (await make_key(hsm, KeySpec.AES_256, refused=not keeps_keys)).ref
    other = (await make_key(hsm, KeySpec.AES_256, refused=not keeps_keys)).ref
    assert {each.ref for each in await hsm.find(first.key_id)} == {first}
    assert {each.ref for each in await hsm.find_all()} == {first, other}
    assert await hsm.find(new_ref().key_id) == []


async def test_an_existing_id_is_not_generated_again(hsm: Token, keeps_keys: bool) -> None:
    key = await make_key(hsm, KeySpec.AES_256, refused=not keeps_keys)
    for spec in (KeySpec.AES_256, KeySpec.RSA_3072):
        with pytest.raises(StrongroomError) as caught:
            await hsm.generate(key.ref, label(), spec)
        assert caught.value.reason is Reason.KEY_EXISTS
    assert len(await hsm.find(key.ref.key_id)) == 1


async def test_twins_are_shown_and_not_used(
    hsm: Token, outsider: Callable[[str, KeyVersionRef], str], open_token: Callable[..., Awaitable[Token]]
) -> None:
    """PKCS#11 has no create-if-absent: no token objects to a second key of the same id."""
    key = await make_key(hsm, KeySpec.AES_256)
    item = await key.seal(b"value")
    outsider("generate", key.ref)
    other = KeyInUse(await open_token(), key.ref, key.algorithm)
    assert [each.ref for each in await other.token.find_all()] == [key.ref, key.ref]
    for use in (other.seal(b"value"), other.open(item), other.token.verify(key.ref)):
        with pytest.raises(StrongroomError) as caught:
            await use
        assert caught.value.reason is Reason.KEY_CONFLICT
    assert other.token.available


async def test_an_absent_key_is_not_found(hsm: Token, keeps_keys: bool) -> None:
    key = await make_key(hsm, KeySpec.AES_256, refused=not keeps_keys)
    item = await key.seal(b"value")
    absent = KeyInUse(hsm, new_ref(), key.algorithm)
    for use in (absent.seal(b"value"), absent.open(item), hsm.verify(absent.ref)):
        with pytest.raises(StrongroomError) as caught:
            await use
        assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND
    assert hsm.available


async def test_many_keys_generated_at_a_time_are_all_there_once(hsm: Token, keeps_keys: bool) -> None:
    keys = await asyncio.gather(*(make_key(hsm, KeySpec.AES_256, refused=not keeps_keys) for _ in range(20)))
    found = [each.ref.key_id for each in await hsm.find_all()]
    assert sorted(found) == sorted(key.ref.key_id for key in keys)


async def test_a_key_is_the_same_to_a_process_that_never_saw_it_made(
    hsm: Token, open_token: Callable[..., Awaitable[Token]], keeps_keys: bool
) -> None:
    key = await make_key(hsm, KeySpec.AES_256, refused=not keeps_keys)
    item = await key.seal(b"value")
    other = await open_token()
    (found,) = await other.find(key.ref.key_id)
    assert found.label == label()
    if keeps_keys:
        assert await other.verify(key.ref) == found
    assert await KeyInUse(other, key.ref, key.algorithm).open(item) == b"value"
