# SPDX-License-Identifier: Apache-2.0
"""Make the SoftHSM token at the first start; leave an existing one alone.

The PIN goes to softhsm2-util by its terminal prompts: programs that log command lines would keep an argument. The
security officer's PIN is random and forgotten, so nobody can set another user PIN without knowing the present one. The
token is in a directory of its own, since a volume's root is often open to everyone.
"""

import os
import pty
import secrets
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Read the environment: SOFTHSM2_CONF, TOKEN_DIRECTORY, TOKEN_LABEL, PIN_FILE."""
    label = os.environ["TOKEN_LABEL"]
    pin = Path(os.environ["PIN_FILE"]).read_bytes().decode().rstrip("\r\n")
    if not (4 <= len(pin.encode()) <= 255 and pin.isprintable()):
        sys.exit("the PIN must be 4 to 255 printable characters, and nothing else in the Secret's value")
    Path(os.environ["TOKEN_DIRECTORY"]).mkdir(mode=0o700, exist_ok=True)
    slots = subprocess.run(["softhsm2-util", "--show-slots"], check=True, capture_output=True, text=True).stdout
    labels = [line.partition(":")[2].strip() for line in slots.splitlines() if line.strip().startswith("Label:")]
    if label in labels:
        sys.stdout.write(f"token {label!r} is there\n")
        return
    officer_pin = secrets.token_hex(16)
    controller, terminal = pty.openpty()
    command = ["softhsm2-util", "--init-token", "--free", "--label", label]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.DEVNULL) as process:
        os.write(controller, "".join(f"{answer}\n" for answer in (officer_pin, officer_pin, pin, pin)).encode())
    if process.returncode:
        sys.exit(f"softhsm2-util could not make token {label!r}")
    sys.stdout.write(f"token {label!r} made\n")


main()
