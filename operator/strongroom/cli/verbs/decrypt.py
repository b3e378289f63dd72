# SPDX-License-Identifier: Apache-2.0
"""`strongroom decrypt`: EncryptedSecret manifests → Secret manifests, or one value."""

import sys

import click

from strongroom.cli import documents, encryptedsecret, keysapi, namespace, output, secret, sources, terminal
from strongroom.cli.cluster import Cluster
from strongroom.cli.documents import Format, Object
from strongroom.cli.encryptedsecret import EncryptedManifest, Sealing
from strongroom.cli.failure import invalid, located
from strongroom.cli.options import ClusterOptions, cluster_options, format_option, input_option


@click.command()
@input_option
@format_option("yaml", "json")
@click.option("--show", is_flag=True, help="Print plaintext although stdout is a terminal.")
@click.option("--raw", is_flag=True, help="Print one value as it is, no newline added.")
@click.option("--data-key", metavar="KEY", help="With --raw: which value.")
@cluster_options
@click.pass_context
def decrypt(
    ctx: click.Context, filenames: tuple[str, ...], output_format: Format, show: bool, raw: bool, data_key: str | None
) -> None:
    """Turn EncryptedSecret manifests back into Secret manifests.

    Needs the permission keys/decrypt in the namespace; each use is recorded. What is not an EncryptedSecret passes
    through untouched. Nothing is written unless every value decrypts.

    \b
    Examples:
      strongroom decrypt -f encrypted.yaml > /dev/shm/secret.yaml
      strongroom decrypt -f encrypted.yaml --raw --data-key tls.key | openssl pkey -noout -check
    """
    options = ctx.ensure_object(ClusterOptions)
    if raw != (data_key is not None):
        raise click.UsageError("--raw and --data-key go together")
    if sys.stdout.isatty() and not show:
        raise click.UsageError("stdout is a terminal: add --show to print plaintext there, or redirect it")
    cluster = Cluster(options)
    read = [
        document
        for source in sources.read(filenames)
        for document in documents.parse(source, kind=encryptedsecret.KIND)
    ]
    found = [item for item in documents.objects(read) if item.is_a(encryptedsecret.API_VERSION, encryptedsecret.KIND)]
    checked = [(item, encryptedsecret.check(item)) for item in found]
    sealings = [_sealing(item, manifest, options, cluster) for item, manifest in checked]
    if data_key is not None:
        if len(checked) != 1:
            raise click.UsageError(f"--raw needs exactly one EncryptedSecret in the input, not {len(checked)}")
        output.write(_values(cluster, *checked[0], sealings[0], only=data_key)[data_key])
        return
    if not checked:
        terminal.note("no EncryptedSecret found: nothing to decrypt")
    for (item, manifest), sealing in zip(checked, sealings, strict=True):
        values = _values(cluster, item, manifest, sealing)
        item.replace(secret.build(item, manifest.with_values(values, namespace=sealing.namespace)))
    output.write(documents.render(read, output_format))


def _sealing(item: Object, manifest: EncryptedManifest, options: ClusterOptions, cluster: Cluster) -> Sealing:
    chosen, origin = namespace.of_manifest(manifest.namespace, options, cluster, item.place)
    if not manifest.namespace:
        terminal.note(f"{manifest.name}: namespace {chosen} {origin}")
    return Sealing(manifest.key_name, manifest.scope, chosen, manifest.context)


def _values(
    cluster: Cluster, item: Object, manifest: EncryptedManifest, sealing: Sealing, *, only: str | None = None
) -> dict[str, bytes]:
    """The plaintexts of one object, or of one of its data keys: then nothing else is decrypted."""
    if only is not None and only not in manifest.blobs:
        raise invalid("no such data key", hint="'strongroom inspect' shows them", place=item.place.at(only))
    chosen = {key: blob for key, blob in manifest.blobs.items() if only in (None, key)}
    with located(item.place):
        return keysapi.decrypt(
            cluster,
            sealing,
            name=manifest.name,
            encrypted={key: blob.serialise() for key, blob in chosen.items()},
            sizes={key: blob.plaintext_sizes for key, blob in chosen.items()},
        )
