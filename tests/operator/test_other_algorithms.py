# SPDX-License-Identifier: Apache-2.0
"""HSMs that encrypt otherwise than with a nonce of 12 bytes: the same from the API to the Secret."""

import base64
import os
from typing import Any

import pytest

from testbed.operator import OperatorProcess
from testbed.softhsm import SoftHsmToken
from tests.conftest import OwnOperator
from tests.operator.api import Api, Refused
from tests.operator.conftest import TenantFactory
from tests.operator.masterkeys import MasterKeys, new_name
from tests.operator.tenant import condition, decoded

pytestmark = [pytest.mark.cluster, pytest.mark.hsm]

VALUES = {
    "empty": b"",
    "block": bytes(range(16)),
    "looks-padded": b"\x10" * 16,
    "limit-minus-1": os.urandom(4095),
    "limit": os.urandom(4096),
}


def started(own_operator: OwnOperator, token: SoftHsmToken, **changes: Any) -> OperatorProcess:
    """An operator whose token has the profile `softhsm` with these changes."""
    return own_operator(tokens=[token], overrides={"hsms": [token.config() | {"profileChanges": changes}]})


@pytest.mark.parametrize(
    ("changes", "number", "name"),
    [
        pytest.param({"aead": "cbc-hmac"}, 6, "AES_256_CBC_HMAC_SHA256", id="cbc-hmac"),
        pytest.param({"aead": "cbc-hmac", "maxDataBytes": 2048}, 6, "AES_256_CBC_HMAC_SHA256", id="cbc-hmac-in-steps"),
        pytest.param({"ivBytes": 16}, 7, "AES_256_GCM_IV16", id="gcm-16"),
    ],
)
def test_values_arrive_and_altered_ones_do_not(
    changes: dict[str, Any],
    number: int,
    name: str,
    own_operator: OwnOperator,
    new_token: SoftHsmToken,
    new_tenant: TenantFactory,
    admin: Api,
) -> None:
    started(own_operator, new_token, **changes)
    tenant = new_tenant(key=new_name())
    assert decoded(tenant.deliver("db", VALUES, encryptionContext={"team": "payments"})) == VALUES
    status = MasterKeys(admin).get(tenant.key)["status"]
    assert [entry["algorithm"] for entry in status["versions"]] == [name]

    raw = base64.b64decode(tenant.encrypt("bad", {"a": b"value"})["a"])
    assert raw[3] == number
    for position in (24, len(raw) - 1):  # nonce, tag
        altered = bytearray(raw)
        altered[position] ^= 1
        tenant.apply(f"bad-{position}", {"a": base64.b64encode(altered).decode()})
        tenant.wait_reason(f"bad-{position}", "InvalidCiphertext")
    MasterKeys(admin).delete(tenant.key)


def test_a_key_made_under_another_profile_decrypts_and_new_ones_encrypt(
    own_operator: OwnOperator, new_token: SoftHsmToken, new_tenant: TenantFactory, admin: Api
) -> None:
    started(own_operator, new_token)
    tenant = new_tenant(key=new_name())
    old = tenant.encrypt("db", {"a": b"old"})["a"]
    started(own_operator, new_token, ivBytes=16)
    tenant.apply("db", {"a": old})
    tenant.wait_ready("db")
    with pytest.raises(Refused, match=r"AES_256_GCM_IV16.*decrypts only") as refused:
        tenant.encrypt("db", {"a": b"new"})
    assert refused.value.reason == "InvalidKeyUsage"
    other = new_tenant(key=new_name())
    assert base64.b64decode(other.encrypt("db", {"a": b"new"})["a"])[3] == 7
    for key in (tenant.key, other.key):
        MasterKeys(admin).delete(key)


def test_a_kind_of_key_that_the_hsm_does_not_have_is_refused(
    own_operator: OwnOperator, new_token: SoftHsmToken, admin: Api
) -> None:
    started(own_operator, new_token, oaepHash=None)
    keys, name = MasterKeys(admin), new_name()
    keys.create(name, keySpec="RSA_3072")
    refused = keys.wait_reason(name, "InvalidKeyUsage")
    assert "RSA_3072" in condition(refused, "Ready")["message"]
    keys.delete(name)
