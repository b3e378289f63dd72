# SPDX-License-Identifier: Apache-2.0
"""The operator's configuration: one YAML file (a ConfigMap in the chart), checked whole at start.

Every field has its meaning, unit and default beside it. An unknown field, a wrong type or a value out of range is a
ConfigurationError that names the field; nothing starts then.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from strongroom import profiles, tracing
from strongroom.model.limits import MAX_PLAINTEXT_BYTES

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
_AbsolutePath = Annotated[str, msgspec.Meta(pattern=r"^/")]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class ConfigurationError(Exception):
    """The configuration cannot be used. The message names the file, the field and what is expected."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    pass


class HsmConfig(_Section, frozen=True, kw_only=True):
    """One PKCS#11 token."""

    name: _Name
    """What `spec.hsm` of a CustomerMasterKey names."""
    module: _AbsolutePath
    """The PKCS#11 library, absolute: it is loaded from here and nowhere else."""
    module_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest the library must have; empty: not checked."""
    token_label: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    """CKA label of the token inside the library (PKCS#11: at most 32 characters). Exactly one must match."""
    profile: str = profiles.GENERIC
    """What kind of token it is: softhsm, aws-cloudhsm, thales-luna, … (docs/hsm.md)."""
    profile_changes: dict[str, Any] = {}
    """Fields of the profile that are otherwise here, such as oaepHash."""
    library_parameters: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    """Text handed to C_Initialize, for the libraries that ask for one (NSS); empty: none."""
    pin_file: Annotated[str, msgspec.Meta(pattern=r"^(/.*)?$")] = ""
    """File that holds the user PIN; read when needed, never kept. A trailing newline is dropped. Needed unless the
    profile has no login; never read then."""
    environment: dict[str, str] = {}
    """Environment variables for the library's process, such as SOFTHSM2_CONF. It gets no other."""
    sessions: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    """Sessions for values, so encryptions and decryptions at a time; none: as many as the profile says. What the token
    allows counts, too."""
    operation_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    """After this long an encryption or decryption counts as hung: the library's process is killed and started anew.
    Other calls (finding, generating and verifying keys) may take ten times as long."""
    certification: Annotated[str, msgspec.Meta(max_length=128)] = "none"
    """What the administrator states about the device (FIPS 140-3 Level 3, …). Shown in status as a claim."""

    @property
    def resolved_profile(self) -> profiles.Profile:
        """The profile with its changes. Raises profiles.ProfileError, but not for what `load` has accepted."""
        return profiles.load(self.profile, self.profile_changes)

    @property
    def wanted_sessions(self) -> int:
        """How many sessions for values the token is asked for."""
        return self.sessions or self.resolved_profile.sessions


class ApiConfig(_Section, frozen=True, kw_only=True):
    """The aggregated crypto API."""

    enabled: bool = True
    address: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known beforehand
    """Address to listen on."""
    port: _Port = 10250
    """Port to listen on; 0 picks a free one. GKE's private clusters allow 10250 from the API server by default."""
    service_name: _Name = "strongroom"
    """Service in front of the API: names the serving certificate."""
    client_burst: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Requests served at a time; more wait in the listener's queue."""


class AuditConfig(_Section, frozen=True, kw_only=True):
    """The audit log."""

    file: str = ""
    """Also append to this file; empty: stdout alone."""
    strict: bool = True
    """Refuse an operation whose record cannot be written (AuditUnavailable)."""


class SecretsConfig(_Section, frozen=True, kw_only=True):
    """What the operator writes, and how it looks after it."""

    drift_watch: bool = True
    """Watch the metadata of managed Secrets and repair them. Off: the operator holds no read permission on Secrets."""
    max_plaintext_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAINTEXT_BYTES)] = MAX_PLAINTEXT_BYTES
    """Largest value, in bytes; may lower the limit, never raise it."""
    denied_metadata: list[str] = []
    """Regular expressions; a template label or annotation whose whole key matches one is refused."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole file."""

    namespace: _Name
    """Namespace of the operator itself: its ledger, certificate and Events."""
    service_account: _Name = "strongroom"
    """ServiceAccount the operator runs as: the principal in audit records of what it does on its own."""
    hsms: Annotated[list[HsmConfig], msgspec.Meta(min_length=1)]
    """Tokens. Names are unique."""
    api: ApiConfig = ApiConfig()
    audit: AuditConfig = AuditConfig()
    secrets: SecretsConfig = SecretsConfig()
    metrics_port: _Port = 8080
    """Prometheus metrics and health over plain HTTP (numbers only); 0 turns it off."""
    metrics_address: str = "0.0.0.0"  # noqa: S104 - scraped from outside the pod
    """Address of the metrics port."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Objects reconciled at a time; also the largest number of API calls in flight."""
    relist_seconds: Annotated[float, msgspec.Meta(ge=1)] = 600.0
    """How often everything is listed anew to find what a watch lost."""
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """Level of the operator's own log on stderr."""


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigurationError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        config = msgspec.yaml.decode(text, type=Config)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except msgspec.DecodeError:
        raise ConfigurationError(f"{path}: is not valid YAML") from None
    _check_whole(path, config)
    return config


def _check_whole(path: Path, config: Config) -> None:
    """What no single field can say."""
    names = [hsm.name for hsm in config.hsms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"{path}: two HSMs are named {name!r} - at `$.hsms[...].name`")
    for index, hsm in enumerate(config.hsms):
        try:
            _check_hsm(hsm)
        except _FieldError as error:
            raise ConfigurationError(f"{path}: {error} - at `$.hsms[{index}].{error.field}`") from None
    for places, field in ((config.workers, "workers"), (config.api.client_burst, "api.clientBurst")):
        if places < len(names):  # else tokens that hang could take them all
            raise ConfigurationError(f"{path}: at least one for each of {len(names)} HSMs - at `$.{field}`")
    for index, pattern in enumerate(config.secrets.denied_metadata):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigurationError(
                f"{path}: is not a regular expression: {error} - at `$.secrets.deniedMetadata[{index}]`"
            ) from None


class _FieldError(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def _check_hsm(hsm: HsmConfig) -> None:
    try:
        profile = hsm.resolved_profile
    except profiles.ProfileError as error:
        raise _FieldError("profileChanges" if hsm.profile in profiles.names() else "profile", str(error)) from None
    if profile.login and not hsm.pin_file:
        raise _FieldError("pinFile", f"is needed, since tokens of the profile {hsm.profile!r} have a login")
    if tracer := tracing.tracer_of_module(Path(hsm.module)):
        raise _FieldError("module", f"{tracer} writes down every call, with PINs and plaintexts; name the token's own")
    for variables, what in (
        (hsm.environment, "environment"),
        (os.environ, "the operator's own environment, which the library does not get"),
    ):
        for variable in variables:
            if tracer := tracing.tracer_of_variable(variable):
                raise _FieldError(
                    "environment",
                    f"{variable} has {tracer} write down calls, with PINs and plaintexts; remove it from {what}",
                )
