# SPDX-License-Identifier: Apache-2.0
"""docs/hsm.md: what it would have one configure is a configuration, and its classes of return codes are the code's."""

from typing import Any

import msgspec
import pytest
import yaml

from strongroom import profiles
from strongroom.config import HsmConfig
from strongroom.hsm import ckr
from strongroom.hsm.ckr import CkrClass
from tests.docs.documents import blocks, read, rows, section

DOCUMENT = read("docs/hsm.md")
TOKENS = [token for block in blocks(DOCUMENT, "yaml") for token in yaml.safe_load(block).get("hsms", [])]
CODES = [
    (cells[0], name.strip("`")) for cells in rows(section(DOCUMENT, "What goes wrong")) for name in cells[1].split(", ")
]

NUMBERS = {ckr.name_of(number): number for number in range(0x400)}
"""Every return code of PKCS#11 by its name."""


@pytest.mark.parametrize("values", TOKENS, ids=lambda values: values["profile"])
def test_every_example_is_a_configuration(values: dict[str, Any]) -> None:
    if "pinSecret" in values:  # the chart mounts it
        secret = values.pop("pinSecret")
        values = {**values, "pinFile": f"/run/strongroom/pins/{values['name']}/{secret['key']}"}
    token = msgspec.convert(values, HsmConfig)
    assert profiles.load(token.profile, token.profile_changes).login is bool(token.pin_file)


def test_every_profile_has_an_example_but_those_that_need_none() -> None:
    shown = {values["profile"] for values in TOKENS}
    assert set(profiles.names()) - shown == {"generic", "softhsm", "nss", "thales-luna"}


def test_every_class_of_return_codes_is_explained() -> None:
    assert sorted({named for named, _ in CODES}) == sorted(each.value for each in CkrClass)


@pytest.mark.parametrize(("named", "code"), CODES)
def test_a_return_code_is_of_the_class_it_stands_under(named: str, code: str) -> None:
    assert ckr.class_of(NUMBERS[f"CKR_{code}"]) is CkrClass(named)
