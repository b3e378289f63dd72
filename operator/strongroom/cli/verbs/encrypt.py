# SPDX-License-Identifier: Apache-2.0
"""`strongroom encrypt`: Secret manifests → EncryptedSecret manifests, or one value → one blob."""

from dataclasses import dataclass, replace
from pathlib import Path

import click
from click.core import ParameterSource

from strongroom.cli import (
    documents,
    encryptedsecret,
    keysapi,
    leaks,
    names,
    namespace,
    output,
    secret,
    sources,
    terminal,
)
from strongroom.cli.cluster import Cluster
from strongroom.cli.comments import Comments
from strongroom.cli.documents import Document, Format, Object
from strongroom.cli.encryptedsecret import Sealing
from strongroom.cli.failure import Place, invalid, located
from strongroom.cli.options import ClusterOptions, cluster_options, format_option, input_option
from strongroom.cli.output import Replacement
from strongroom.cli.secret import SecretManifest
from strongroom.model.binding import Scope
from strongroom.model.context import EncryptionContext


@click.command()
@input_option
@format_option("yaml", "json")
@click.option("--key", "key_name", required=True, metavar="NAME", help="Master key to encrypt with.")
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.STRICT.value,
    show_default=True,
    help="Where the values decrypt: in this namespace under this name, in this namespace, or in the whole cluster.",
)
@click.option(
    "--context", "pairs", multiple=True, metavar="K=V", help="Encryption context: bound to the values, not secret."
)
@click.option("-i", "--in-place", is_flag=True, help="Replace the files.")
@click.option("--raw", is_flag=True, help="Encrypt one value from stdin or --file; print the ciphertext alone.")
@click.option("--file", "value_file", metavar="FILE", help="With --raw: read the value from this file.")
@click.option("--name", metavar="NAME", help="With --raw: name of the EncryptedSecret it is for.")
@click.option("--data-key", metavar="KEY", help="With --raw: data key it is for.")
@cluster_options
@click.pass_context
def encrypt(
    ctx: click.Context,
    filenames: tuple[str, ...],
    output_format: Format,
    key_name: str,
    scope: str,
    pairs: tuple[str, ...],
    in_place: bool,
    raw: bool,
    value_file: str | None,
    name: str | None,
    data_key: str | None,
) -> None:
    """Turn Secret manifests into EncryptedSecret manifests.

    Reads YAML or JSON, any number of documents; what is not a Secret passes through untouched. Everything is checked
    and encrypted before anything is written. Values are bound to namespace, name, data key and encryption context;
    --scope loosens that.

    \b
    Examples:
      strongroom encrypt --key prod -f secret.yaml > encrypted.yaml
      kubectl create secret generic db -n shop --from-file=password --dry-run=client -o yaml \\
        | strongroom encrypt --key prod | kubectl apply -f -
      strongroom encrypt --key prod --context team=payments --in-place -f manifests/
      strongroom encrypt --key prod --raw -n shop --name db --data-key password --file password.txt
    """
    options = ctx.ensure_object(ClusterOptions)
    cluster = Cluster(options)
    unplaced = Sealing(names.check_key_name(key_name), Scope(scope), namespace="", context=_context(pairs))
    if raw:
        if filenames or in_place or ctx.get_parameter_source("output_format") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--raw takes one value from stdin or --file; -f, -i and -o do not go with it")
        if name is None or data_key is None or options.namespace is None:
            raise click.UsageError("--raw needs --name, --data-key and -n: the value is bound to them")
        sealing = replace(unplaced, namespace=names.check_namespace(options.namespace))
        _encrypt_value(cluster, sealing, name=name, data_key=data_key, value_file=value_file)
        return
    if value_file is not None or name is not None or data_key is not None:
        raise click.UsageError("--file, --name and --data-key belong to --raw")
    if in_place and (not filenames or sources.STDIN in filenames):
        raise click.UsageError("--in-place needs files: name them with -f")
    if in_place and ctx.get_parameter_source("output_format") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--in-place keeps each file's format; -o does not go with it")

    files = [documents.parse(source, kind=secret.KIND) for source in sources.read(filenames)]
    plan = [_planned(found, unplaced, options, cluster) for found in _secrets(files)]
    if in_place:
        for found in plan:
            assert found.object.document.source.path is not None
            output.check_replaceable(found.object.document.source.path)
    for found in plan:
        _encrypt_object(cluster, found)
    if not plan:
        terminal.note("no Secret found: nothing to encrypt")
    if in_place:
        output.replace_files(_replacements(files))
        if plan:
            terminal.note("plaintext that was ever committed is still in Git's history: then change those values")
    else:
        output.write(documents.render([document for file in files for document in file], output_format))


@dataclass(frozen=True, slots=True)
class _Planned:
    """A Secret that passed every check, and what it will be bound to."""

    object: Object
    manifest: SecretManifest
    sealing: Sealing
    namespace_origin: str


def _secrets(files: list[list[Document]]) -> list[Object]:
    found = list(documents.objects([document for file in files for document in file]))
    for item in found:
        if item.node.get("kind") == secret.KIND and not item.node.get("apiVersion"):
            raise invalid(
                "apiVersion is missing: not sure that this is a Secret", hint="Add 'apiVersion: v1'", place=item.place
            )
    return [item for item in found if item.is_a(secret.API_VERSION, secret.KIND)]


def _planned(found: Object, unplaced: Sealing, options: ClusterOptions, cluster: Cluster) -> _Planned:
    manifest = secret.check(found)
    chosen, origin = namespace.of_manifest(manifest.namespace, options, cluster, found.place)
    return _Planned(found, manifest, replace(unplaced, namespace=chosen), origin)


def _encrypt_object(cluster: Cluster, planned: _Planned) -> None:
    """Encrypt one object and put the result in its place in the document."""
    found, manifest, sealing = planned.object, planned.manifest, planned.sealing
    with located(found.place):
        encrypted = keysapi.encrypt(cluster, sealing, name=manifest.name, values=manifest.values)
    leaks.warn_of_leaks(manifest, Comments.of(found.node), found.place)
    found.replace(encryptedsecret.build(found, manifest, sealing, encrypted))
    terminal.note(
        f"{sealing.namespace}/{manifest.name}: values encrypted: {len(encrypted)}, scope {sealing.scope}, "
        f"namespace {sealing.namespace} {planned.namespace_origin}"
    )
    if encryptedsecret.too_large_for_client_side_apply(found):
        terminal.warn(
            f"{sealing.namespace}/{manifest.name} is too large for 'kubectl apply'; use: "
            "kubectl apply --server-side -f FILE"
        )


def _replacements(files: list[list[Document]]) -> list[Replacement]:
    """The files in which something was encrypted."""
    return [
        Replacement(source.path, source.raw, documents.render_file(file))
        for file in files
        if any(document.replaced for document in file) and (source := file[0].source).path is not None
    ]


def _encrypt_value(cluster: Cluster, sealing: Sealing, *, name: str, data_key: str, value_file: str | None) -> None:
    place = Place(value_file or "stdin")
    names.check_object_name(name)
    names.check_data_key(data_key)
    value = Path(value_file).read_bytes() if value_file else sources.read_stdin()
    secret.check_size(data_key, len(value), place)
    if value.endswith(b"\n"):
        terminal.note("the value ends with a newline, which is part of it")
    with located(place.at(data_key)):
        encrypted = keysapi.encrypt(cluster, sealing, name=name, values={data_key: value})
    output.write(encrypted[data_key] + "\n")
    terminal.note(f"scope {sealing.scope}, for {sealing.namespace}/{name}, data key {data_key}")


def _context(pairs: tuple[str, ...]) -> EncryptionContext:
    context: dict[str, object] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or key in context:
            raise click.UsageError("--context takes KEY=VALUE, each key once")
        context[key] = value
    return EncryptionContext.parse(context)
