# SPDX-License-Identifier: Apache-2.0
"""Libraries and variables that write PKCS#11 calls down are recognised, and nothing else is."""

from pathlib import Path

import pytest

from strongroom.tracing import tracer_of_module, tracer_of_variable


@pytest.mark.parametrize(
    "name",
    [
        "pkcs11-spy.so",
        "PKCS11-Spy.so",
        "libpkcs11spy.so.2",
        "onepin_pkcs11_spy.so",
        "pkcs11-logger-x64.so",
        "pkcs11-logger.so",
        "libcklog2.so",
    ],
)
def test_tracing_library_is_recognised_by_its_name_and_through_links(tmp_path: Path, name: str) -> None:
    assert tracer_of_module(Path("/usr/lib", name))
    (tmp_path / name).touch()
    (tmp_path / "libtoken.so").symlink_to(tmp_path / name)
    (tmp_path / "again.so").symlink_to(tmp_path / "libtoken.so")
    assert tracer_of_module(tmp_path / "again.so")


@pytest.mark.parametrize(
    "name",
    [
        *("libsofthsm2.so", "libkryoptic_pkcs11.so", "libsoftokn3.so", "libcloudhsm_pkcs11.so", "libCryptoki2_64.so"),
        *("libcknfast.so", "libkmsp11.so", "yubihsm_pkcs11.so", "opensc-pkcs11.so", "p11-kit-client.so"),
    ],
)
def test_token_library_is_no_tracer(tmp_path: Path, name: str) -> None:
    assert tracer_of_module(tmp_path / name) is None


def test_directory_called_like_a_tracer_is_none() -> None:
    assert tracer_of_module(Path("/opt/pkcs11-spy/libsofthsm2.so")) is None


@pytest.mark.parametrize(
    "name",
    [
        *("PKCS11SPY", "PKCS11SPY_OUTPUT", "pkcs11spy", "OPENSC_DEBUG", "P11_KIT_DEBUG"),
        *("PKCS11_LOGGER_LIBRARY_PATH", "PKCS11_LOGGER_LOG_FILE_PATH", "PKCS11_LOGGER_FLAGS"),
        *("NSS_DEBUG_PKCS11_MODULE", "NSS_OUTPUT_FILE", "NSPR_LOG_MODULES", "NSPR_LOG_FILE"),
        *("CKNFAST_DEBUG", "CKNFAST_DEBUGFILE", "YUBIHSM_PKCS11_DBG", "YUBIHSM_PKCS11_DINOUT", "YUBIHSM_LIB_DBG"),
        *("OPENCRYPTOKI_TRACE_LEVEL", "GRPC_TRACE", "RUST_LOG"),
    ],
)
def test_tracing_variable_is_recognised(name: str) -> None:
    assert tracer_of_variable(name)


@pytest.mark.parametrize(
    "name",
    [
        *("SOFTHSM2_CONF", "KRYOPTIC_CONF", "CKNFAST_LOADSHARING", "YUBIHSM_PKCS11_CONF", "KMS_PKCS11_CONFIG"),
        *("ChrystokiConfigurationPath", "PKCS11_MODULE", "NSS_LIB_PARAMS", "PATH", ""),
    ],
)
def test_other_variable_is_none(name: str) -> None:
    assert tracer_of_variable(name) is None
