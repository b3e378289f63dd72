# SPDX-License-Identifier: Apache-2.0
"""One encryption, called directly: no other process, no event loop. Prints the median, in seconds.

`python -m testbed.benchhsm.direct MODULE TOKEN_LABEL PIN_FILE PROFILE KEY_ID COUNT`
"""

import statistics
import sys
import time
from pathlib import Path

from strongroom import profiles
from strongroom.hsm import wire
from strongroom.hsm.ciphers import Ciphers
from strongroom.hsm.keystore import KeyStore
from strongroom.hsm.module import find_token
from strongroom.model.keys import KeySpec


def main(module: str, label: str, pin_file: str, profile_name: str, key_id: str, count: str) -> None:
    profile = profiles.load(profile_name)
    found = find_token(wire.Start(module, "", "", label, profile))
    token = found.log_in(bytearray(Path(pin_file).read_bytes().strip()))
    ciphers = Ciphers(token.anchor, profile)
    key = KeyStore(token, token.anchor).look_up(bytes.fromhex(key_id))
    algorithm = profile.algorithm(KeySpec.AES_256)
    assert algorithm is not None
    plaintext, aad = bytearray(1024), bytes(32)
    durations = []
    for _ in range(int(count)):
        started = time.perf_counter()
        ciphers.for_sealing(key, algorithm).encrypt(key.handles, plaintext, aad)
        durations.append(time.perf_counter() - started)
    print(statistics.median(durations))
    found.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
