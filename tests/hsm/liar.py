# SPDX-License-Identifier: Apache-2.0
"""The verification of a key, run on a token that lies about attributes: what behaviour alone shows.

`liar.py MODULE TOKEN_LABEL PIN_FILE KIND` makes a session key of that kind, believes every attribute, and prints the
verdict.
"""

import sys
from pathlib import Path

from pkcs11 import Attribute, KeyType, MechanismFlag

from strongroom.hsm import wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.keystore import KeyStore
from strongroom.hsm.module import Outcome, find_token, handle_of

_KINDS = {
    "safe": {Attribute.EXTRACTABLE: False},
    "wrappable": {Attribute.EXTRACTABLE: True},
    "readable": {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False},
}


class CredulousKeyStore(KeyStore):
    def _check_attributes(self, key: int) -> None:
        pass


class DeafAesGcm(AesGcm):
    """A token that decrypts whatever it is given."""

    def decrypt(self, key: int, nonce: bytes, body: bytes, aad: bytes) -> bytearray:
        return bytearray(b"strongroom key verification")


def main(module: str, label: str, pin_file: str, kind: str) -> None:
    token = find_token(wire.Start(module, "", label)).log_in(bytearray(Path(pin_file).read_bytes()))
    session = token.new_session()
    aead = DeafAesGcm if kind == "unauthenticated" else AesGcm
    keys = CredulousKeyStore(token, session, aead(token.functions, session))
    key = session.generate_key(
        KeyType.AES,
        256,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        template=_KINDS.get(kind, _KINDS["safe"]),
    )
    try:
        keys.verify(handle_of(key))
    except Outcome as outcome:
        print(outcome.failed.failure.value, flush=True)
    else:
        print("safe", flush=True)
    token.close()


main(*sys.argv[1:])
