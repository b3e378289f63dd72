# SPDX-License-Identifier: Apache-2.0
"""Failures of a worker, worded for people: one place for the texts that conditions, Events and API answers show."""

from strongroom.config import HsmConfig
from strongroom.errors import InvalidCiphertext, Reason, StrongroomError
from strongroom.hsm import ckr
from strongroom.hsm.values import TokenState
from strongroom.hsm.wire import Failed, Failure
from strongroom.model.ids import KeyVersionRef

_RETRIED = "It is tried again by itself; Secrets that exist are not touched"
_ONE_TRY = (
    "A PIN is tried again only when the file's content changes or the operator is restarted, so that the token does "
    "not lock"
)
_NONCONFORMING = "Do not use this token for master keys; docs/hsm.md says what is expected of one"


def unavailable(hsm: str, what: str, *, hint: str = _RETRIED, ckr_name: str = "") -> StrongroomError:
    """The token cannot be used now. `what` completes "HSM 'x': …"."""
    return StrongroomError(Reason.HSM_UNAVAILABLE, f"HSM {hsm!r}: {what}", hint=hint, ckr=ckr_name)


def start_problem(config: HsmConfig, failed: Failed) -> tuple[TokenState, StrongroomError]:
    """Why a worker could not open its token."""
    code = _name(failed)
    match failed.failure:
        case Failure.LOGIN_REFUSED:
            return TokenState.PIN_INVALID, _pin_invalid(
                config,
                f"the login to the token {config.token_label!r} was refused{_in(code)}",
                hint=f"Write the right PIN into {config.pin_file}. {_ONE_TRY}",
                code=code,
            )
        case Failure.PIN_LOCKED:
            return TokenState.MISCONFIGURED, _pin_invalid(
                config,
                f"the user PIN of the token {config.token_label!r} is locked, so no login is tried",
                hint="Have the token's security officer reset the PIN",
            )
        case Failure.PIN_FINAL_TRY:
            return TokenState.MISCONFIGURED, _pin_invalid(
                config,
                f"one more wrong PIN locks the token {config.token_label!r}, so no login is tried",
                hint="Log in once with the right PIN and the vendor's tool, which ends this state, and write that PIN "
                f"into {config.pin_file}",
            )
        case Failure.TOKEN_NOT_FOUND:
            return TokenState.UNAVAILABLE, unavailable(
                config.name,
                f"no token labelled {config.token_label!r} is present",
                hint="Check the device, its network and tokenLabel in the configuration",
            )
        case Failure.TOKEN_AMBIGUOUS:
            return TokenState.MISCONFIGURED, unavailable(
                config.name,
                f"several tokens are labelled {config.token_label!r}",
                hint="Give each token a label of its own",
            )
        case Failure.MODULE_UNUSABLE:
            return TokenState.MISCONFIGURED, unavailable(
                config.name,
                f"{config.module} cannot be loaded as a PKCS#11 library",
                hint="Check 'module' in the configuration, the file's permissions, and 'ldd' on it in the same image",
            )
        case Failure.MODULE_DIGEST_DIFFERS:
            return TokenState.MISCONFIGURED, unavailable(
                config.name,
                f"{config.module} is not the library that moduleSha256 names",
                hint="Find out why it changed before you change moduleSha256",
            )
        case Failure.MECHANISM_MISSING:
            return TokenState.MISCONFIGURED, unavailable(
                config.name,
                f"the token does not offer what the profile {config.profile!r} needs{_in(code)}",
                hint="Choose the profile of this token, or change it with profileChanges (docs/hsm.md)",
            )
        case _:
            return TokenState.UNAVAILABLE, unavailable(
                config.name, f"the token does not open{_in(code)}", ckr_name=code
            )


def unclear_login_problem(config: HsmConfig, what: str, seconds: float) -> StrongroomError:
    """A login ended so that nobody knows whether the token counted a wrong PIN: the next try is put off. `what` is what
    happened."""
    return unavailable(
        config.name,
        f"a login to the token {config.token_label!r} ended without a word on the PIN: {what}",
        hint=f"Check library and device. Each try may count as a wrong PIN, so the next one is in {seconds / 60:.0f} "
        "minutes, or as soon as the PIN file's content changes",
    )


def operation_problem(hsm: str, failed: Failed, *, ref: KeyVersionRef | None, where: str) -> StrongroomError:
    """Why a request failed. `ref` is the key it was about, `where` names the value at fault."""
    code = _name(failed)
    match failed.failure:
        case Failure.INVALID_CIPHERTEXT:
            return InvalidCiphertext(where=where, ckr=code)
        case Failure.UNAVAILABLE:
            return unavailable(hsm, f"the token does not answer as it should{_in(code)}", ckr_name=code)
        case Failure.KEY_NOT_FOUND:
            return no_key_problem(hsm, ref, code)
        case Failure.KEY_TWINS:
            return twins_problem(hsm, ref, code)
        case Failure.KEY_EXISTS:
            return StrongroomError(
                Reason.KEY_EXISTS, f"HSM {hsm!r} holds an object for {ref} already, so none is generated", ckr=code
            )
        case Failure.VALUE_READABLE:
            return _nonconforming(hsm, ref, "its value can be read", code)
        case Failure.KEY_WRAPPABLE:
            return _nonconforming(hsm, ref, "it can be wrapped and so exported", code)
        case Failure.TAMPERING_ACCEPTED:
            return _nonconforming(hsm, ref, "the token accepts altered ciphertext", code)
        case Failure.ATTRIBUTES_UNSAFE:
            return _nonconforming(hsm, ref, "it is not sensitive, or may do more than encrypt and decrypt", code)
        case _:
            return StrongroomError(
                Reason.HSM_ERROR,
                f"HSM {hsm!r} refuses the operation{_in(code)}",
                hint="Check the token's policy and capacity, and the library's own log",
                ckr=code,
            )


def twins_problem(hsm: str, ref: KeyVersionRef | None, code: str = "") -> StrongroomError:
    """The token holds several keys where one is meant."""
    return StrongroomError(
        Reason.KEY_CONFLICT,
        f"HSM {hsm!r} holds several keys {ref}, and none is used",
        hint="Remove the one that was not made by this cluster; nothing is deleted automatically",
        ckr=code,
    )


def no_key_problem(hsm: str, ref: KeyVersionRef | None, code: str = "") -> StrongroomError:
    """A healthy token does not hold the key."""
    return StrongroomError(
        Reason.KEY_VERSION_NOT_FOUND,
        f"HSM {hsm!r} holds no key {ref}",
        hint="Restore the token's key from its backup",
        ckr=code,
    )


def queue_problem(hsm: str, waiting: int) -> StrongroomError:
    """As many requests wait as may."""
    return StrongroomError(Reason.THROTTLED, f"HSM {hsm!r}: {waiting} requests wait already", hint="Try again later")


def suspect_problem(hsm: str, seconds: float) -> StrongroomError:
    """The request was there too often when the library's process ended."""
    return StrongroomError(
        Reason.HSM_ERROR,
        f"HSM {hsm!r}: the library's process crashed or hung each time this request was under way, so it is not sent "
        f"again for {seconds / 60:.0f} minutes",
        hint="The operator's log shows where the library crashed, for its vendor. A value encrypted again "
        "is another request",
    )


def _pin_invalid(config: HsmConfig, what: str, *, hint: str, code: str = "") -> StrongroomError:
    return StrongroomError(Reason.HSM_PIN_INVALID, f"HSM {config.name!r}: {what}", hint=hint, ckr=code)


class UnsafeKeyError(StrongroomError):
    """It was proved that a key can leave the token, or that its values are not authenticated."""


def _nonconforming(hsm: str, ref: KeyVersionRef | None, what: str, code: str) -> UnsafeKeyError:
    return UnsafeKeyError(
        Reason.HSM_ERROR, f"HSM {hsm!r}: key {ref} is not safe: {what}", hint=_NONCONFORMING, ckr=code
    )


def _name(failed: Failed) -> str:
    return ckr.name_of(failed.ckr) if failed.ckr != ckr.CKR_OK else ""


def _in(code: str) -> str:
    return f" ({code})" if code else ""
