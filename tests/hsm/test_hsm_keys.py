# SPDX-License-Identifier: Apache-2.0
"""Key objects in a real token: generated safely, found completely, never used when in doubt."""

import uuid
from collections.abc import Awaitable, Callable

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import Token
from strongroom.hsm.cryptoki import CKA_NEVER_EXTRACTABLE, CKM_AES_CBC_PAD, CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD
from strongroom.model.algorithms import Algorithm
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import KeyInUse, label, new_ref
from testbed.shim import Habits, Shim

pytestmark = pytest.mark.hsm

Outsider = Callable[[str, KeyVersionRef], str]
_AES = KeySpec.AES_256


async def test_a_generated_key_encrypts_and_decrypts_and_nothing_else(hsm: Token, outsider: Outsider) -> None:
    ref = new_ref()
    material = await hsm.generate(ref, label(), _AES)
    assert (material.ref, material.label, material.never_extractable) == (ref, label(), True)
    shown = dict(line.split("=", 1) for line in outsider("show", ref).splitlines())
    true = {"SENSITIVE", "PRIVATE", "LOCAL", "ENCRYPT", "DECRYPT"}
    false = {"EXTRACTABLE", "MODIFIABLE", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE"}
    assert shown.pop("LABEL") == label().format()
    assert shown == {**dict.fromkeys(true, "True"), **dict.fromkeys(false, "False")}


async def test_a_generated_rsa_key_unwraps_and_nothing_else(hsm: Token, outsider: Outsider) -> None:
    ref = new_ref()
    material = await hsm.generate(ref, label(), KeySpec.RSA_3072)
    assert (material.ref, material.spec, material.never_extractable) == (ref, KeySpec.RSA_3072, True)
    shown = dict(line.split("=", 1) for line in outsider("show-private", ref).splitlines())
    true = {"SENSITIVE", "PRIVATE", "LOCAL", "UNWRAP"}
    false = {"EXTRACTABLE", "MODIFIABLE", "DECRYPT", "SIGN", "DERIVE"}
    assert shown.pop("LABEL") == label().format()
    assert shown == {**dict.fromkeys(true, "True"), **dict.fromkeys(false, "False")}


async def test_verifying_leaves_nothing_behind(hsm: Token, key: KeyInUse) -> None:
    for _ in range(5):
        await hsm.verify(key.ref)
    assert [material.ref for material in await hsm.find_all()] == [key.ref]


async def test_keys_are_found_by_id_and_all_together(hsm: Token, outsider: Outsider) -> None:
    refs = [new_ref(), new_ref()]
    second = KeyVersionRef(refs[0].key_id, KeyVersion(2))
    for ref in (*refs, second):
        await hsm.generate(ref, label(ref.version), _AES)
    foreign = new_ref()
    outsider("generate", foreign)
    assert {material.ref for material in await hsm.find(refs[0].key_id)} == {refs[0], second}
    found = {material.ref: material.label for material in await hsm.find_all()}
    assert found == {refs[0]: label(), refs[1]: label(), second: label(2), foreign: None}
    assert await hsm.find(KeyId(uuid.uuid4())) == []


async def test_finding_takes_two_reads_a_key(shim: Shim, hsm: Token) -> None:
    for _ in range(4):
        await hsm.generate(new_ref(), label(), _AES)
    before = shim.calls("C_GetAttributeValue")
    assert len(await hsm.find_all()) == 4
    assert shim.calls("C_GetAttributeValue") == before + 4 * 2


async def test_an_attribute_the_token_does_not_know_hides_no_other(shim: Shim, hsm: Token, key: KeyInUse) -> None:
    shim.set("C_GetAttributeValue", returns=0x12, attribute=CKA_NEVER_EXTRACTABLE)  # ATTRIBUTE_TYPE_INVALID
    (material,) = await hsm.find(key.ref.key_id)
    assert (material.ref, material.label, material.never_extractable) == (key.ref, label(), False)


async def test_an_existing_id_is_not_generated_again(hsm: Token, key: KeyInUse, outsider: Outsider) -> None:
    foreign = new_ref()
    outsider("generate", foreign)
    for ref in (key.ref, foreign):
        with pytest.raises(StrongroomError) as caught:
            await hsm.generate(ref, label(), _AES)
        assert caught.value.reason is Reason.KEY_EXISTS
        assert len(await hsm.find(ref.key_id)) == 1


async def test_a_label_for_another_version_is_refused(hsm: Token) -> None:
    with pytest.raises(ValueError, match="another version"):
        await hsm.generate(new_ref(1), label(2), _AES)


async def test_twins_are_shown_and_not_used(open_token: Callable[[], Awaitable[Token]], outsider: Outsider) -> None:
    first = await open_token()
    ref = new_ref()
    await first.generate(ref, label(), _AES)
    outsider("generate", ref)
    second = await open_token()  # has not looked the key up yet
    assert [material.ref for material in await second.find(ref.key_id)] == [ref, ref]
    for use in (KeyInUse(second, ref, Algorithm.AES_256_GCM, b"").seal(b"value"), second.verify(ref)):
        with pytest.raises(StrongroomError) as caught:
            await use
        assert caught.value.reason is Reason.KEY_CONFLICT
    assert second.available


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("generate-readable", "not sensitive"),
        ("generate-extractable", "not sensitive"),
        ("generate-wrapping", "may do more than encrypt and decrypt"),
    ],
)
async def test_an_unsafe_key_fails_verification(hsm: Token, outsider: Outsider, action: str, why: str) -> None:
    ref = new_ref()
    outsider(action, ref)
    with pytest.raises(StrongroomError, match=why) as caught:
        await hsm.verify(ref)
    assert caught.value.reason is Reason.HSM_ERROR


async def test_a_safe_key_made_elsewhere_passes_verification(hsm: Token, outsider: Outsider) -> None:
    ref = new_ref()
    outsider("generate", ref)
    await hsm.verify(ref)
    key = KeyInUse(hsm, ref, Algorithm.AES_256_GCM, b"")
    assert await key.open(await key.seal(b"value")) == b"value"


async def test_verifying_an_absent_key_says_so(hsm: Token) -> None:
    with pytest.raises(StrongroomError) as caught:
        await hsm.verify(new_ref())
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND


async def test_a_key_that_only_the_padded_cbc_mode_wraps_is_refused(shim: Shim, hsm: Token) -> None:
    shim.set("C_WrapKey", returns=0, mechanism=CKM_AES_CBC_PAD)  # SoftHSM offers the mode, but does not wrap with it
    with pytest.raises(StrongroomError, match="it can be wrapped") as caught:
        await hsm.generate(new_ref(), label(), _AES)
    assert caught.value.reason is Reason.HSM_ERROR


@pytest.mark.parametrize(
    ("habits", "why"),
    [
        (Habits(readable=True), "its value can be read"),
        (Habits(wrappable=True), "it can be wrapped"),
        (Habits(wrappable=True, hide=(CKM_AES_KEY_WRAP,)), "it can be wrapped"),
        (Habits(accept_any_tag=True), "the token accepts altered ciphertext"),
    ],
    ids=["readable", "wrappable", "wrappable-with-padding-alone", "accepts-any-tag"],
)
@pytest.mark.parametrize("spec", [KeySpec.AES_256, KeySpec.RSA_3072])
async def test_verification_rests_on_behaviour_not_on_attributes(
    shim: Shim, hsm: Token, spec: KeySpec, habits: Habits, why: str
) -> None:
    """The token claims that its keys are sensitive and never extractable; what it does says otherwise."""
    shim.behave(habits)
    ref = new_ref()
    for attempt in (hsm.generate(ref, label(), spec), hsm.verify(ref)):
        with pytest.raises(StrongroomError, match=why) as caught:
            await attempt
        assert caught.value.reason is Reason.HSM_ERROR
    assert hsm.available
    shim.behave(Habits())


async def test_a_token_that_wraps_nothing_at_all_passes(shim: Shim, hsm: Token, key: KeyInUse) -> None:
    shim.behave(Habits(hide=(CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD, CKM_AES_CBC_PAD)))
    wrapped = shim.calls("C_WrapKey")
    await hsm.verify(key.ref)
    assert shim.calls("C_WrapKey") == wrapped
