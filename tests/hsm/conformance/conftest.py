# SPDX-License-Identifier: Apache-2.0
"""The same tests over every token: `--tokens=softhsm,kryoptic,nss` (SoftHSM alone unless told otherwise).

`hsm`, `open_token` and `outsider` of tests/hsm/conftest.py are here at the token that `new_token` names.
"""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from strongroom.hsm.api import Token
from strongroom.model.keys import KeySpec
from testbed.hsmkeys import TOKEN_KINDS, KeyInUse, make_key
from testbed.pkcs11token import Pkcs11Token


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "token_kind" in metafunc.fixturenames:
        kinds = metafunc.config.getoption("--tokens").split(",")
        if unknown := set(kinds) - set(TOKEN_KINDS):
            raise pytest.UsageError(f"--tokens: {', '.join(sorted(unknown))}: not among {', '.join(TOKEN_KINDS)}")
        if "outsider" in metafunc.fixturenames and "nss" in kinds:
            kinds.remove("nss")  # whose library needs parameters, which no other program here hands over
        metafunc.parametrize("token_kind", kinds)


@pytest.fixture
def new_token(token_kind: str, tmp_path: Path) -> Pkcs11Token:
    """A token of the test's own."""
    return TOKEN_KINDS[token_kind](tmp_path / token_kind, f"own-{secrets.token_hex(4)}")


@pytest.fixture
def keeps_keys(token_kind: str) -> bool:
    """Whether keys that must not leave the token stay there. NSS wraps them all the same, so ours are refused."""
    return token_kind != "nss"


@pytest.fixture
def key_in_use(hsm: Token, keeps_keys: bool) -> Callable[[KeySpec], Awaitable[KeyInUse]]:
    """Makes a key of a kind, and tells how values are sealed and opened with it.

    A token that cannot keep its keys still has to encrypt and decrypt as it should: the refused key is used.
    """

    async def make(spec: KeySpec) -> KeyInUse:
        return await make_key(hsm, spec, refused=not keeps_keys)

    return make
