# SPDX-License-Identifier: Apache-2.0
"""Tries to read key material out of a token, with its PIN, past Strongroom: `tokenprobe MODULE LABEL PIN_FILE`.

Prints what the token says of each secret key. Exit status 1 if there is none, or if one can be read.
"""

import sys
from pathlib import Path

import pkcs11
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive

_SHOWN = ("SENSITIVE", "ALWAYS_SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL")


def main(module: str, label: str, pin_file: str) -> int:
    """Look at every secret key of the token."""
    token = pkcs11.lib(module).get_token(token_label=label)
    readable = keys = 0
    with token.open(user_pin=Path(pin_file).read_text().strip()) as session:
        for key in session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}):
            keys += 1
            facts = ", ".join(f"{name} {key[Attribute[name]]}" for name in _SHOWN)
            print(f"{key[Attribute.LABEL]}: {facts}")
            try:
                len(key[Attribute.VALUE])
            except AttributeSensitive:
                print("reading CKA_VALUE: CKR_ATTRIBUTE_SENSITIVE")
            else:
                readable += 1
                print("reading CKA_VALUE: possible")
    return 1 if readable or not keys else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
