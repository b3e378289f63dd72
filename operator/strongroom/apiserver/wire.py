# SPDX-License-Identifier: Apache-2.0
"""What a request says: the body as typed values, decoded strictly. No error text quotes a value of the body."""

import base64
import binascii
import json
import re
from enum import StrEnum, unique
from typing import Any, Final, TypeVar

import msgspec

from strongroom.apiserver.status import InvalidField
from strongroom.errors import Reason, StrongroomError
from strongroom.model.binding import Binding, Purpose, Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.labels import CRYPTO_API_VERSION
from strongroom.model.limits import MAX_DATA_KEY_LENGTH, MAX_VALUES
from strongroom.model.plaintext import Plaintext

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DATA_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_MAX_OBJECT_NAME: Final = 253
_SHOWN_UNKNOWN_FIELDS: Final = 10
_SHOWN_FIELD_CHARACTERS: Final = 100


@unique
class FieldValidation(StrEnum):
    """What becomes of fields that nobody knows: Kubernetes' `fieldValidation`."""

    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Never shows its fields: they may hold plaintext."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Spec(_Wire, frozen=True, kw_only=True):
    """What both requests say about where their values belong."""

    scope: str
    name: str = ""
    encryption_context: dict[str, str] = {}


class EncryptSpec(Spec, frozen=True, kw_only=True):
    """Values to encrypt: data key → base64."""

    values: dict[str, str]


class DecryptSpec(Spec, frozen=True, kw_only=True):
    """Blobs to decrypt: data key → blob. `recipient_public_key`, PEM, asks for an answer that it alone can open."""

    encrypted_data: dict[str, str]
    recipient_public_key: str = ""


class _Request(_Wire, frozen=True, kw_only=True):
    api_version: str
    kind: str
    metadata: dict[str, Any] | None = None


class EncryptRequest(_Request, frozen=True, kw_only=True):
    """Body of `POST …/encrypt`."""

    spec: EncryptSpec


class DecryptRequest(_Request, frozen=True, kw_only=True):
    """Body of `POST …/decrypt`."""

    spec: DecryptSpec


_R = TypeVar("_R", EncryptRequest, DecryptRequest)


def decode(body: bytes, kind: type[_R], *, namespace: str, validation: FieldValidation) -> tuple[_R, list[str]]:
    """The request in a body, and a warning for each unknown field if `validation` is Warn.

    A field that is given twice is refused whatever `validation` says: nothing about a value may be ambiguous. Raises
    InvalidField, StrongroomError (InvalidRequest).
    """
    tree = _parse(body)
    try:
        request = msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise _mismatch(error) from None
    if request.api_version != CRYPTO_API_VERSION:
        raise InvalidField("apiVersion", f"must be {CRYPTO_API_VERSION}", reason="FieldValueNotSupported")
    if request.kind != kind.__name__:
        raise InvalidField("kind", f"must be {kind.__name__} here", reason="FieldValueNotSupported")
    if (request.metadata or {}).get("namespace", namespace) != namespace:
        raise InvalidField("metadata.namespace", "differs from the namespace of the request's path")
    unknown = _unknown(tree, kind) + _unknown(tree["spec"], type(request.spec), "spec.")
    if unknown and validation is FieldValidation.STRICT:
        raise InvalidField(unknown[0], "unknown field", hint="Remove it, or correct its name")
    warnings = [f'unknown field "{field}"' for field in unknown[:_SHOWN_UNKNOWN_FIELDS]]
    return request, warnings if validation is FieldValidation.WARN else []


def bindings(spec: Spec, values: dict[str, str], *, field: str, namespace: str) -> dict[str, Binding]:
    """What each value is bound to, by data key. Raises StrongroomError, InvalidField."""
    if spec.scope not in Scope.__members__.values():
        raise InvalidField("spec.scope", f"must be one of {', '.join(Scope)}", reason="FieldValueNotSupported")
    scope = Scope(spec.scope)
    if scope is Scope.STRICT and not spec.name:
        raise InvalidField("spec.name", "is required under scope Strict", reason="FieldValueRequired")
    if spec.name and not is_name(spec.name, _MAX_OBJECT_NAME):
        raise InvalidField("spec.name", "is not the name of an object: lower case letters, digits, '-' and '.'")
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidField(field, f"holds {len(values)} values, 1 to {MAX_VALUES} are allowed")
    for data_key in values:
        _check_data_key(field, data_key)
    context = EncryptionContext.parse(spec.encryption_context)
    return {data_key: Binding(Purpose.SECRET, scope, namespace, spec.name, data_key, context) for data_key in values}


def plaintext(text: str, *, where: str) -> Plaintext:
    """Decode canonical base64 (RFC 4648 section 4, with padding); `where` names the field. Raises InvalidField."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _not_base64(where) from None
    if base64.b64encode(raw).decode() != text:
        raise _not_base64(where)
    return Plaintext(raw)


def is_name(text: str, longest: int) -> bool:
    """Whether this is an RFC 1123 subdomain, as Kubernetes names objects."""
    return len(text) <= longest and _SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether this is an RFC 1123 label, as Kubernetes names namespaces."""
    return _LABEL.fullmatch(text) is not None


def _parse(body: bytes) -> Any:
    """JSON (RFC 8259) in UTF-8 without NaN, infinities, repeated names or halves of characters."""
    try:
        tree = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
        if b"\\u" in body:  # only an escape can be half a surrogate pair, which is no text
            json.dumps(tree, ensure_ascii=False).encode()
        return tree
    except UnicodeEncodeError:
        raise StrongroomError(
            Reason.INVALID_REQUEST, "the body holds half of a surrogate pair, which is no text"
        ) from None
    except (ValueError, RecursionError):  # the parser's own text quotes nothing, but says nothing more either
        raise StrongroomError(Reason.INVALID_REQUEST, "the body is not a JSON document in UTF-8") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise InvalidField(_shown(name), "is given twice", reason="FieldValueDuplicate")
        result[name] = value
    return result


def _refuse_constant(_: str) -> Any:
    raise ValueError


def _mismatch(error: msgspec.ValidationError) -> StrongroomError:
    """msgspec says which types it found and where, without the values: no field here has an enum, whose text would
    quote one."""
    message, _, path = str(error).partition(" - at ")
    return InvalidField(path.strip("`").removeprefix("$").removeprefix(".") or "body", message)


def _unknown(tree: dict[str, Any], kind: type[msgspec.Struct], prefix: str = "") -> list[str]:
    return [prefix + _shown(name) for name in tree if name not in kind.__struct_encode_fields__]


def _shown(name: str) -> str:
    """A name out of the body, safe in a message and in a header."""
    return json.dumps(name)[1:-1][:_SHOWN_FIELD_CHARACTERS]


def _check_data_key(field: str, data_key: str) -> None:
    if (
        len(data_key) > MAX_DATA_KEY_LENGTH
        or _DATA_KEY.fullmatch(data_key) is None
        or data_key == "."
        or data_key.startswith("..")
    ):
        raise InvalidField(
            f"{field}[{_shown(data_key)}]",
            f"is not a data key: letters, digits, '-', '_' and '.', at most {MAX_DATA_KEY_LENGTH}, not '.' and not "
            "starting with '..'",
        )


def _not_base64(where: str) -> InvalidField:
    return InvalidField(where, "is not canonical base64 (RFC 4648 section 4, with padding)")
