# SPDX-License-Identifier: Apache-2.0
"""Key objects in a real token: generated safely, found completely, never used when in doubt."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.errors import Reason, StrongroomError
from strongroom.hsm.api import KeyLabel, SealItem, Token
from strongroom.model.ids import KeyId, KeyVersion, KeyVersionRef
from strongroom.model.plaintext import Plaintext
from testbed.softhsm import SoftHsmToken
from tests.hsm.faults import Faults

pytestmark = pytest.mark.hsm

Outsider = Callable[[str, KeyVersionRef], str]
_CREATED = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)


def _ref(version: int = 1) -> KeyVersionRef:
    return KeyVersionRef(KeyId(uuid.uuid4()), KeyVersion(version))


def _label(version: int = 1) -> KeyLabel:
    return KeyLabel("0123456789abcdef", "prod", KeyVersion(version), _CREATED)


async def _use(token: Token, ref: KeyVersionRef) -> None:
    await token.seal(ref, [SealItem(Plaintext(b"value"), b"aad")])


async def test_a_generated_key_encrypts_and_decrypts_and_nothing_else(hsm: Token, outsider: Outsider) -> None:
    ref = _ref()
    material = await hsm.generate(ref, _label())
    assert (material.ref, material.label, material.never_extractable) == (ref, _label(), True)
    shown = dict(line.split("=", 1) for line in outsider("show", ref).splitlines())
    true = {"SENSITIVE", "PRIVATE", "LOCAL", "ENCRYPT", "DECRYPT"}
    false = {"EXTRACTABLE", "MODIFIABLE", "WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE"}
    assert shown.pop("LABEL") == _label().format()
    assert shown == {**dict.fromkeys(true, "True"), **dict.fromkeys(false, "False")}


async def test_verifying_leaves_nothing_behind(hsm: Token, key: KeyVersionRef) -> None:
    for _ in range(5):
        await hsm.verify(key)
    assert [material.ref for material in await hsm.find_all()] == [key]


async def test_keys_are_found_by_id_and_all_together(hsm: Token, outsider: Outsider) -> None:
    refs = [_ref(), _ref()]
    second = KeyVersionRef(refs[0].key_id, KeyVersion(2))
    for ref in (*refs, second):
        await hsm.generate(ref, _label(ref.version))
    foreign = _ref()
    outsider("generate", foreign)
    assert {material.ref for material in await hsm.find(refs[0].key_id)} == {refs[0], second}
    found = {material.ref: material.label for material in await hsm.find_all()}
    assert found == {refs[0]: _label(), refs[1]: _label(), second: _label(2), foreign: None}
    assert await hsm.find(KeyId(uuid.uuid4())) == []


async def test_finding_takes_one_read_a_key_beside_those_of_the_binding(faults: Faults, hsm: Token) -> None:
    for _ in range(4):
        await hsm.generate(_ref(), _label())
    before = faults.calls("C_GetAttributeValue")
    assert len(await hsm.find_all()) == 4
    assert faults.calls("C_GetAttributeValue") == before + 4 * (1 + 2)


async def test_an_attribute_the_token_does_not_know_hides_no_other(
    faults: Faults, hsm: Token, key: KeyVersionRef
) -> None:
    faults.set("C_GetAttributeValue", returns=0x12, attribute=0x164)  # ATTRIBUTE_TYPE_INVALID, CKA_NEVER_EXTRACTABLE
    (material,) = await hsm.find(key.key_id)
    assert (material.ref, material.label, material.never_extractable) == (key, _label(), False)


async def test_an_existing_id_is_not_generated_again(hsm: Token, key: KeyVersionRef, outsider: Outsider) -> None:
    foreign = _ref()
    outsider("generate", foreign)
    for ref in (key, foreign):
        with pytest.raises(StrongroomError) as caught:
            await hsm.generate(ref, _label())
        assert caught.value.reason is Reason.KEY_EXISTS
        assert len(await hsm.find(ref.key_id)) == 1


async def test_a_label_for_another_version_is_refused(hsm: Token) -> None:
    with pytest.raises(ValueError, match="another version"):
        await hsm.generate(_ref(1), _label(2))


async def test_twins_are_shown_and_not_used(open_token: Callable[[], Awaitable[Token]], outsider: Outsider) -> None:
    first = await open_token()
    ref = _ref()
    await first.generate(ref, _label())
    outsider("generate", ref)
    second = await open_token()  # has not looked the key up yet
    assert [material.ref for material in await second.find(ref.key_id)] == [ref, ref]
    for use in (_use(second, ref), second.verify(ref)):
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
    ref = _ref()
    outsider(action, ref)
    with pytest.raises(StrongroomError, match=why) as caught:
        await hsm.verify(ref)
    assert caught.value.reason is Reason.HSM_ERROR


async def test_a_safe_key_made_elsewhere_passes_verification(hsm: Token, outsider: Outsider) -> None:
    ref = _ref()
    outsider("generate", ref)
    await hsm.verify(ref)
    await _use(hsm, ref)


async def test_verifying_an_absent_key_says_so(hsm: Token) -> None:
    with pytest.raises(StrongroomError) as caught:
        await hsm.verify(_ref())
    assert caught.value.reason is Reason.KEY_VERSION_NOT_FOUND


async def test_many_keys_generated_at_a_time_are_all_there_once(
    open_token: Callable[..., Awaitable[Token]],
) -> None:
    token = await open_token(sessions=8)
    refs = [_ref() for _ in range(40)]
    await asyncio.gather(*(token.generate(ref, _label()) for ref in refs))
    assert sorted(material.ref.key_id for material in await token.find_all()) == sorted(ref.key_id for ref in refs)


async def test_the_token_describes_itself(hsm: Token) -> None:
    info = await hsm.info()
    assert (info.manufacturer, info.model, info.firmware) == ("SoftHSM project", "SoftHSM v2", "2.6")
    assert info.label.startswith("own-")
    assert info.serial


async def test_a_key_that_only_the_padded_cbc_mode_wraps_is_refused(faults: Faults, hsm: Token) -> None:
    faults.set("C_WrapKey", returns=0, mechanism=0x1085)  # SoftHSM offers the mode, but does not wrap with it
    with pytest.raises(StrongroomError, match="it can be wrapped") as caught:
        await hsm.generate(_ref(), _label())
    assert caught.value.reason is Reason.HSM_ERROR


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("safe", "safe"),
        ("readable", "ValueReadable"),
        ("wrappable", "KeyWrappable"),
        ("unauthenticated", "TamperingAccepted"),
    ],
)
def test_verification_rests_on_behaviour_not_on_attributes(new_token: SoftHsmToken, kind: str, verdict: str) -> None:
    script = Path(__file__).with_name("liar.py")
    command = [sys.executable, str(script), str(new_token.module), new_token.label, str(new_token.pin_file), kind]
    done = subprocess.run(command, env=new_token.environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == verdict
