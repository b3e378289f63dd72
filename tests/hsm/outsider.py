# SPDX-License-Identifier: Apache-2.0
"""Another program at the same token, as administrators and attackers have.

`outsider.py ACTION MODULE TOKEN_LABEL PIN_FILE CKA_ID`, run as a process of its own: a PKCS#11 library is initialised
once per process.
"""

import sys
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

_ENCRYPT = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
_KINDS = {
    "generate": (_ENCRYPT, {Attribute.EXTRACTABLE: False}),
    "generate-extractable": (_ENCRYPT, {Attribute.EXTRACTABLE: True}),
    "generate-readable": (_ENCRYPT, {Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: False}),
    "generate-wrapping": (_ENCRYPT | MechanismFlag.WRAP, {Attribute.EXTRACTABLE: False}),
}


def main(action: str, module: str, label: str, pin_file: str, key_id: str) -> None:
    token = pkcs11.lib(module).get_token(token_label=label)
    cka_id = bytes.fromhex(key_id)
    with token.open(rw=True, user_pin=Path(pin_file).read_text().strip()) as session:
        keys = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: cka_id}))
        if action == "destroy":
            for key in keys:
                key.destroy()
        elif action == "show":
            (key,) = keys
            for name in ("SENSITIVE", "EXTRACTABLE", "PRIVATE", "MODIFIABLE", "LOCAL", "ENCRYPT", "DECRYPT"):
                print(f"{name}={key[Attribute[name]]}")
            for name in ("WRAP", "UNWRAP", "SIGN", "VERIFY", "DERIVE"):
                print(f"{name}={key[Attribute[name]]}")
            print(f"LABEL={key[Attribute.LABEL]}")
        elif action == "show-private":
            (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: cka_id})
            for name in ("SENSITIVE", "EXTRACTABLE", "PRIVATE", "MODIFIABLE", "LOCAL"):
                print(f"{name}={key[Attribute[name]]}")
            for name in ("UNWRAP", "DECRYPT", "SIGN", "DERIVE"):
                print(f"{name}={key[Attribute[name]]}")
            print(f"LABEL={key[Attribute.LABEL]}")
        else:
            capabilities, template = _KINDS[action]
            session.generate_key(
                KeyType.AES,
                256,
                id=cka_id,
                label="made elsewhere",
                store=True,
                capabilities=capabilities,
                template=template,
            )


main(*sys.argv[1:])
