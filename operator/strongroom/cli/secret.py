# SPDX-License-Identifier: Apache-2.0
"""Secret manifests: checked on the way in, built on the way out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml.comments import CommentedMap

from strongroom.cli import base64text, fields, names, terminal
from strongroom.cli.comments import Comments, put, put_trailer
from strongroom.cli.documents import Object
from strongroom.cli.failure import CommandError, Place, invalid, located
from strongroom.errors import PlaintextTooLarge, Reason
from strongroom.model.labels import MANAGED_BY_LABEL, RESERVED_DOMAIN, carries_authority
from strongroom.model.limits import MAX_PLAINTEXT_BYTES, MAX_VALUES

API_VERSION = "v1"
KIND = "Secret"
DEFAULT_TYPE = "Opaque"

_FIELDS = {"apiVersion", "kind", "metadata", "data", "stringData", "type", "immutable", "status"}
_SET_BY_SERVER = {
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
}
_KEPT = {"name", "namespace", "labels", "annotations"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class SecretManifest:
    """A Secret that passed every check. `namespace` is empty if the manifest names none."""

    namespace: str
    name: str
    type: str
    immutable: bool | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    """Without kubectl's copy of the whole manifest."""
    values: Mapping[str, bytes] = field(repr=False)
    """Data key → plaintext, `stringData` merged over `data`, in the order of the manifest."""


def check(found: Object) -> SecretManifest:
    """Everything that can be known before a request: shape, names, base64, sizes, types. Raises CommandError."""
    node, place = found.node, found.place
    for key in node:
        if key not in _FIELDS:
            raise invalid(f"a Secret has no field {key!r}", hint="Correct or remove it", place=place)
    metadata = fields.mapping(node, "metadata", place)
    secret_type = fields.string(node, "type", place) or DEFAULT_TYPE
    check_type(secret_type, place)
    for key in metadata:
        if key not in _KEPT | _SET_BY_SERVER:
            terminal.warn(f"metadata.{key} is left out ({place})")
    values = _values(node, place)
    if not values:
        raise invalid("no values to encrypt", hint="Add 'data' or 'stringData', or leave the object out", place=place)
    if len(values) > MAX_VALUES:
        raise invalid(
            f"{len(values)} values, at most {MAX_VALUES} are allowed", hint="Split it into several Secrets", place=place
        )
    annotations = fields.strings(metadata, "annotations", place)
    annotations.pop(_LAST_APPLIED, None)
    return SecretManifest(
        namespace=fields.namespace(metadata, place),
        name=fields.object_name(metadata, place),
        type=secret_type,
        immutable=fields.boolean(node, "immutable", place),
        labels=fields.strings(metadata, "labels", place),
        annotations=annotations,
        values=values,
    )


def build(found: Object, manifest: SecretManifest) -> CommentedMap:
    """A Secret in the place of the EncryptedSecret `found`, with its comments."""
    comments = Comments.of(found.node)
    column, step = found.column, found.document.indentation.mapping
    secret = CommentedMap()
    put(secret, "apiVersion", API_VERSION, comments.at("apiVersion"), column=column)
    put(secret, "kind", KIND, comments.at("kind"), column=column)
    metadata = CommentedMap()
    put(metadata, "name", manifest.name, comments.at("metadata", "name"), column=column + step)
    put(metadata, "namespace", manifest.namespace, comments.at("metadata", "namespace"), column=column + step)
    in_template = ("spec", "template", "metadata", "annotations")
    for path, pairs in ((("metadata", "labels"), manifest.labels), (in_template, manifest.annotations)):
        if pairs:
            block = CommentedMap()
            for key, text in pairs.items():
                put(block, key, text, comments.at(*path, key), column=column + 2 * step)
            put(metadata, path[-1], block, comments.at(*path), column=column + step)
    put(secret, "metadata", metadata, comments.at("metadata"), column=column)
    put(secret, "type", manifest.type, comments.at("spec", "template", "type"), column=column)
    if manifest.immutable is not None:
        put(secret, "immutable", manifest.immutable, comments.at("spec", "template", "immutable"), column=column)
    data = CommentedMap()
    for key, value in manifest.values.items():
        put(data, key, base64text.encode(value), comments.at("spec", "encryptedData", key), column=column + step)
    put(secret, "data", data, comments.at("spec", "encryptedData"), column=column)
    put_trailer(secret, comments.trailer, column=column)
    return secret


def set_by_operator(key: str) -> bool:
    """Whether only the operator may put this label or annotation on a Secret."""
    domain = key.rpartition("/")[0]
    return domain == RESERVED_DOMAIN or domain.endswith("." + RESERVED_DOMAIN) or key == MANAGED_BY_LABEL


def check_size(data_key: str, size: int, place: Place) -> None:
    """Raises CommandError (PlaintextTooLarge)."""
    if size > MAX_PLAINTEXT_BYTES:
        with located(place.at(data_key)):
            raise PlaintextTooLarge(where="the value", size=size, limit=MAX_PLAINTEXT_BYTES)


def check_type(secret_type: str, place: Place) -> None:
    """Raises CommandError (ForbiddenSecretType)."""
    if carries_authority(secret_type):
        raise CommandError(
            Reason.FORBIDDEN_SECRET_TYPE,
            f"type {secret_type} carries authority and is never written from ciphertext",
            hint="Let Kubernetes issue such tokens; leave this Secret out",
            place=place,
        )


def _values(node: Mapping[str, Any], place: Place) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for key, text in fields.strings(node, "data", place).items():
        names.check_data_key(key, place)
        values[key] = _decode(text, place.at(key))
    for key, text in fields.strings(node, "stringData", place).items():
        names.check_data_key(key, place)
        values[key] = _encode(text, place.at(key))
    for key, value in values.items():
        check_size(key, len(value), place)
    return values


def _decode(text: str, place: Place) -> bytes:
    """Strict base64 of RFC 4648 section 4; line breaks are skipped as Kubernetes does."""
    try:
        return base64text.decode(text.replace("\r", "").replace("\n", ""))
    except ValueError:
        raise invalid(
            "the value is not valid base64", hint="Encode it, or move it to stringData as it is", place=place
        ) from None


def _encode(text: str, place: Place) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("the value is not valid Unicode", hint="Use data with base64 instead", place=place) from None
