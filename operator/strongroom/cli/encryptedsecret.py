# SPDX-License-Identifier: Apache-2.0
"""EncryptedSecret manifests: checked on the way in, built on the way out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ruamel.yaml.comments import CommentedMap

from strongroom.cli import fields, names, secret, terminal
from strongroom.cli.comments import Comment, Comments, put, put_trailer
from strongroom.cli.documents import Object
from strongroom.cli.failure import invalid, located
from strongroom.cli.secret import DEFAULT_TYPE, SecretManifest
from strongroom.cli.yamltext import to_json
from strongroom.envelope import format as blob_format
from strongroom.envelope.format import Blob
from strongroom.errors import Reason, StrongroomError
from strongroom.model.binding import Scope
from strongroom.model.context import EncryptionContext
from strongroom.model.labels import ENCRYPTED_SECRET_KIND, KMS_API_VERSION
from strongroom.model.limits import MAX_VALUES

API_VERSION = KMS_API_VERSION
KIND = ENCRYPTED_SECRET_KIND

_CLIENT_SIDE_APPLY_BYTES = 256 * 1024 - 1024
"""kubectl apply keeps the manifest as JSON in an annotation; all annotations of an object may have 256 KiB
together. One KiB is left for the others."""


@dataclass(frozen=True, slots=True)
class EncryptedManifest:
    """An EncryptedSecret that passed every check. `namespace` is empty if the manifest names none."""

    namespace: str
    name: str
    key_name: str
    scope: Scope
    context: EncryptionContext
    blobs: Mapping[str, Blob]
    type: str
    immutable: bool | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    def with_values(self, values: Mapping[str, bytes], *, namespace: str) -> SecretManifest:
        """The Secret it stands for."""
        return SecretManifest(namespace, self.name, self.type, self.immutable, self.labels, self.annotations, values)


@dataclass(frozen=True, slots=True)
class Sealing:
    """What binds the values of one object, besides its name."""

    key_name: str
    scope: Scope
    namespace: str
    context: EncryptionContext


def check(found: Object) -> EncryptedManifest:
    """Shape, names, scope, context and every blob's format; nothing is authenticated. Raises StrongroomError."""
    node, place = found.node, found.place
    metadata, spec = fields.mapping(node, "metadata", place), fields.mapping(node, "spec", place)
    template = fields.mapping(spec, "template", place)
    template_metadata = fields.mapping(template, "metadata", place)
    scope = fields.string(spec, "scope", place)
    if scope not in Scope.__members__.values():
        raise invalid(f"unknown scope {scope!r}", hint="Use Strict, Namespace or Cluster", place=place)
    with located(place):
        context = EncryptionContext.parse(fields.strings(spec, "encryptionContext", place))
    secret_type = fields.string(template, "type", place) or DEFAULT_TYPE
    secret.check_type(secret_type, place)
    return EncryptedManifest(
        namespace=fields.namespace(metadata, place),
        name=fields.object_name(metadata, place),
        key_name=names.check_key_name(fields.string(fields.mapping(spec, "keyRef", place), "name", place), place),
        scope=Scope(scope),
        context=context,
        blobs=blobs(found),
        type=secret_type,
        immutable=fields.boolean(template, "immutable", place),
        labels=fields.strings(template_metadata, "labels", place),
        annotations=fields.strings(template_metadata, "annotations", place),
    )


def blobs(found: Object) -> dict[str, Blob]:
    """The parsed values alone. Raises StrongroomError."""
    place = found.place
    texts = fields.strings(fields.mapping(found.node, "spec", place), "encryptedData", place)
    if not 1 <= len(texts) <= MAX_VALUES:
        raise invalid(f"{len(texts)} values in encryptedData", hint=f"1 to {MAX_VALUES} are allowed", place=place)
    parsed: dict[str, Blob] = {}
    for key, text in texts.items():
        names.check_data_key(key, place)
        with located(place.at(key)):
            parsed[key] = blob_format.parse(text, where="the value")
    return parsed


def check_encrypted(values: Mapping[str, bytes], encrypted: Mapping[str, str]) -> None:
    """The server's answer fits what was sent: the same data keys, and blobs of the right size. A second look
    before a plaintext file is replaced. Raises StrongroomError."""
    if values.keys() != encrypted.keys():
        raise StrongroomError(
            Reason.INTERNAL, "the server answered with other data keys than it was sent", hint="Nothing was written"
        )
    for key, value in values.items():
        blob = blob_format.parse(encrypted[key], where=f"the server's answer for data key {key}")
        if len(value) not in blob.plaintext_sizes:
            raise StrongroomError(
                Reason.INTERNAL, f"the server's answer for data key {key} has another size", hint="Nothing was written"
            )


def build(found: Object, manifest: SecretManifest, sealing: Sealing, encrypted: Mapping[str, str]) -> CommentedMap:
    """An EncryptedSecret in the place of the Secret `found`, with its comments."""
    comments = Comments.of(found.node)
    column, step = found.column, found.document.indentation.mapping
    result = CommentedMap()
    put(result, "apiVersion", API_VERSION, comments.at("apiVersion"), column=column)
    put(result, "kind", KIND, comments.at("kind"), column=column)
    metadata = CommentedMap()
    put(metadata, "name", manifest.name, comments.at("metadata", "name"), column=column + step)
    if manifest.namespace or sealing.scope is not Scope.CLUSTER:
        put(metadata, "namespace", sealing.namespace, comments.at("metadata", "namespace"), column=column + step)
    if manifest.labels:
        labels = _block(manifest.labels, comments, ("metadata", "labels"), column=column + 2 * step)
        put(metadata, "labels", labels, comments.at("metadata", "labels"), column=column + step)
    put(result, "metadata", metadata, comments.at("metadata"), column=column)

    spec = CommentedMap()
    put(spec, "keyRef", CommentedMap(name=sealing.key_name), column=column + step)
    put(spec, "scope", sealing.scope.value, column=column + step)
    if sealing.context.pairs:
        block = _block(sealing.context.as_dict(), Comments(), (), column=column + 2 * step)
        put(spec, "encryptionContext", block, column=column + step)
    data, comment = _encrypted_data(encrypted, comments, column=column + 2 * step)
    put(spec, "encryptedData", data, comment, column=column + step)
    put(
        spec,
        "template",
        _template(found, manifest, comments, column=column + 2 * step, step=step),
        column=column + step,
    )
    put(result, "spec", spec, column=column)
    put_trailer(result, comments.trailer, column=column)
    return result


def too_large_for_client_side_apply(found: Object) -> bool:
    """Whether `kubectl apply` would fail on it without --server-side."""
    return len(json.dumps(to_json(found.node), separators=(",", ":")).encode()) > _CLIENT_SIDE_APPLY_BYTES


def _encrypted_data(encrypted: Mapping[str, str], comments: Comments, *, column: int) -> tuple[CommentedMap, Comment]:
    """The values with the comments they had in data or stringData, and the comment of the block."""
    block = CommentedMap()
    for key, text in encrypted.items():
        in_data, in_string_data = comments.at("data", key), comments.at("stringData", key)
        put(
            block,
            key,
            text,
            Comment([*in_data.before, *in_string_data.before], in_string_data.behind or in_data.behind),
            column=column,
        )
    data, string_data = comments.at("data"), comments.at("stringData")
    return block, Comment([*data.before, *string_data.before], data.behind or string_data.behind)


def _template(found: Object, manifest: SecretManifest, comments: Comments, *, column: int, step: int) -> CommentedMap:
    template = CommentedMap()
    put(template, "type", manifest.type, comments.at("type"), column=column)
    if manifest.immutable is not None:
        put(template, "immutable", manifest.immutable, comments.at("immutable"), column=column)
    metadata = CommentedMap()
    for kind, pairs in (("labels", manifest.labels), ("annotations", manifest.annotations)):
        kept = {key: value for key, value in pairs.items() if not secret.set_by_operator(key)}
        for key in pairs.keys() - kept.keys():
            terminal.note(f"{kind[:-1]} {key} is not copied to the Secret: only the operator sets it ({found.place})")
        if kept:
            own = comments if kind == "annotations" else Comments()
            put(metadata, kind, _block(kept, own, ("metadata", kind), column=column + 2 * step), column=column + step)
    if metadata:
        put(template, "metadata", metadata, column=column)
    return template


def _block(pairs: Mapping[str, str], comments: Comments, path: tuple[str, ...], *, column: int) -> CommentedMap:
    block = CommentedMap()
    for key, value in pairs.items():
        put(block, key, value, comments.at(*path, key), column=column)
    return block
