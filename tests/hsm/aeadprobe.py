# SPDX-License-Identifier: Apache-2.0
"""Authenticated encryption on a real token, asked over standard input and output: one JSON array a line.

`aeadprobe.py MODULE TOKEN_LABEL PIN_FILE PROFILE CHANGES`. Prints the session keys it works with, which are extractable
here and only here, so that a test can do the same without the token; then answers ["encrypt", plaintext, aad],
["decrypt", nonce, body, aad]: everything in hexadecimal digits. What fails is answered with its name.
"""

import json
import sys
from pathlib import Path

from strongroom import profiles
from strongroom.hsm import cryptoki, wire
from strongroom.hsm.aead import AesGcm
from strongroom.hsm.cbchmac import CbcHmac
from strongroom.hsm.cryptoki import CkrError, CryptokiSession, KeyHandles
from strongroom.hsm.module import find_token
from strongroom.hsm.outcome import Outcome
from strongroom.profiles import Aead

_EXTRACTABLE = {cryptoki.CKA_SENSITIVE: False, cryptoki.CKA_EXTRACTABLE: True, cryptoki.CKA_VALUE_LEN: 32}


def _keys(session: CryptokiSession) -> KeyHandles:
    encrypting = {cryptoki.CKA_ENCRYPT: True, cryptoki.CKA_DECRYPT: True}
    signing = {cryptoki.CKA_SIGN: True, cryptoki.CKA_VERIFY: True}
    return KeyHandles(
        session.generate_key(cryptoki.CKM_AES_KEY_GEN, {**encrypting, **_EXTRACTABLE}),
        session.generate_key(cryptoki.CKM_GENERIC_SECRET_KEY_GEN, {**signing, **_EXTRACTABLE}),
    )


def main(module: str, label: str, pin_file: str, profile_name: str, changes: str) -> None:
    profile = profiles.load(profile_name, json.loads(changes))
    found = find_token(wire.Start(module, "", "", label, profile))
    token = found.log_in(bytearray(Path(pin_file).read_bytes().strip()))
    session = token.anchor
    aead = (CbcHmac if profile.aead is Aead.CBC_HMAC else AesGcm)(token.functions, session.handle, profile)
    keys = _keys(session)
    values = [session.read(key, cryptoki.CKA_VALUE)[0] for key in keys]
    print(json.dumps([value.hex() for value in values]), flush=True)
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        data = [bytes.fromhex(argument) for argument in arguments]
        try:
            if operation == "encrypt":
                plaintext, aad = data
                answer = [part.hex() for part in aead.encrypt(keys, bytearray(plaintext), aad)]
            else:
                nonce, body, aad = data
                answer = [aead.decrypt(keys, nonce, body, aad).hex()]
        except CkrError as error:
            answer = [str(error)]
        except Outcome as outcome:
            answer = [outcome.failed.failure.value]
        print(json.dumps(answer), flush=True)
    found.close()


main(*sys.argv[1:])
