# SPDX-License-Identifier: Apache-2.0
"""Another program at the token, as administrators have: what is in there, and what others may have put there.

    outsider.py list     MODULE TOKEN_LABEL PIN_FILE                     one line an object: CKA_ID in hex, CKA_LABEL
    outsider.py generate MODULE TOKEN_LABEL PIN_FILE CKA_ID CKA_LABEL    an AES key like the operator's own
    outsider.py destroy  MODULE TOKEN_LABEL PIN_FILE CKA_ID CKA_LABEL

Run as a process of its own: a PKCS#11 library is initialised once per process.
"""

import sys
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass


def main(action: str, module: str, token_label: str, pin_file: str, key_id: str = "", label: str = "") -> None:
    token = pkcs11.lib(module).get_token(token_label=token_label)
    with token.open(rw=True, user_pin=Path(pin_file).read_text().strip()) as session:
        keys = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
        match action:
            case "list":
                for key in keys:
                    print(key[Attribute.ID].hex(), key[Attribute.LABEL])
            case "generate":
                session.generate_key(
                    KeyType.AES,
                    256,
                    id=bytes.fromhex(key_id),
                    label=label,
                    store=True,
                    capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                    template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
                )
            case "destroy":
                for key in keys:
                    if (key[Attribute.ID].hex(), key[Attribute.LABEL]) == (key_id, label):
                        key.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
