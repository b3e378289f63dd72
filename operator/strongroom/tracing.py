# SPDX-License-Identifier: Apache-2.0
"""Known ways to have PKCS#11 calls written down, with PINs and plaintexts: the operator starts with none of them.

Every row is from its vendor's or project's documentation. A library under another name, or a configuration file of a
vendor's that says so, is not recognised: `moduleSha256` in the configuration pins the library, and docs/hsm.md names
the files to look at.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_MODULES = (
    # (part of the library's file name, who)
    ("pkcs11[-_]?spy", "OpenSC's pkcs11-spy"),
    ("pkcs11[-_]?logger", "pkcs11-logger"),
    ("cklog", "the logger of Thales Luna"),
)

_VARIABLES = (
    # (start of the variable's name, who)
    ("PKCS11SPY", "OpenSC's pkcs11-spy"),
    ("OPENSC_DEBUG", "OpenSC"),
    ("PKCS11_LOGGER_", "pkcs11-logger"),
    ("P11_KIT_DEBUG", "p11-kit"),
    ("NSS_DEBUG_PKCS11_MODULE", "NSS"),
    ("NSS_OUTPUT_FILE", "NSS"),
    ("NSPR_LOG_", "NSS"),
    ("CKNFAST_DEBUG", "Entrust nShield's library"),
    ("YUBIHSM_PKCS11_DBG", "YubiHSM's library"),
    ("YUBIHSM_LIB_DBG", "YubiHSM's library"),
    ("YUBIHSM_PKCS11_DINOUT", "YubiHSM's library"),
    ("OPENCRYPTOKI_TRACE_LEVEL", "openCryptoki"),
    ("GRPC_TRACE", "Google's library"),
    ("RUST_LOG", "kryoptic or NetHSM's library"),
)


def tracer_of_module(module: Path) -> str | None:
    """Who this library is if it traces another; None: no tracer that we know. Symbolic links are followed."""
    names = (module.name, module.resolve().name)
    return _first((part, who) for part, who in _MODULES if any(re.search(part, name, re.IGNORECASE) for name in names))


def tracer_of_variable(name: str) -> str | None:
    """Whose tracing this environment variable turns on; None: nobody's that we know. Its value does not matter."""
    return _first((start, who) for start, who in _VARIABLES if name.upper().startswith(start))


def _first(found: Iterable[tuple[str, str]]) -> str | None:
    return next((who for _, who in found), None)
