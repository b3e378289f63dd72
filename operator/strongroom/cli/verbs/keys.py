# SPDX-License-Identifier: Apache-2.0
"""`strongroom keys`: the master keys as a namespace sees them."""

import json
from collections.abc import Mapping
from typing import Any

import click

from strongroom.cli import exits, keysapi, names, namespace, output, table, yamltext
from strongroom.cli.cluster import Cluster
from strongroom.cli.options import ClusterOptions, cluster_options, format_option
from strongroom.cli.printable import printable
from strongroom.cli.yamltext import Indentation
from strongroom.model.labels import CRYPTO_API_VERSION

_HEADER = ("NAME", "STATE", "SPEC", "VERSION", "KEY ID")


@click.group()
@cluster_options
def keys() -> None:
    """List and show the keys of a namespace.

    \b
    Examples:
      strongroom keys list -n shop
      strongroom keys show prod -n shop -o yaml
    """


@keys.command("list", epilog=exits.HELP)
@format_option("table", "json", "yaml")
@cluster_options
@click.pass_context
def list_keys(ctx: click.Context, output_format: str) -> None:
    """List the keys that can be used from a namespace.

    \b
    Example:
      strongroom keys list -n shop
    """
    options = ctx.ensure_object(ClusterOptions)
    cluster = Cluster(options)
    chosen, _ = namespace.of_command(options, cluster)
    found = keysapi.list_keys(cluster, chosen)
    if output_format == "table":
        output.write(table.render(_HEADER, [_row(key) for key in found]))
    else:
        answer = {"apiVersion": CRYPTO_API_VERSION, "kind": "KeyList", "items": found}
        output.write(_structured(answer, output_format))


@keys.command("show", epilog=exits.HELP)
@click.argument("name")
@format_option("table", "json", "yaml")
@cluster_options
@click.pass_context
def show_key(ctx: click.Context, name: str, output_format: str) -> None:
    """Show one key: state, current version, id; of an RSA key also what it takes to seal without the server.

    \b
    Example:
      strongroom keys show prod -n shop -o yaml
    """
    options = ctx.ensure_object(ClusterOptions)
    cluster = Cluster(options)
    names.check_key_name(name)
    chosen, _ = namespace.of_command(options, cluster)
    key = keysapi.get_key(cluster, chosen, name)
    if output_format != "table":
        output.write(_structured(key, output_format))
        return
    output.write(table.render(_HEADER, [_row(key)]) + _sealing(key.get("status") or {}))


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    metadata, spec, status = (key.get(part) or {} for part in ("metadata", "spec", "status"))
    fields = (metadata.get("name"), status.get("state"), spec.get("keySpec"), status.get("currentVersion"))
    return tuple(str(field or "-") for field in (*fields, status.get("keyId")))


def _sealing(status: Mapping[str, Any]) -> str:
    """What an RSA key publishes; empty for others."""
    if not status.get("publicKey"):
        return ""
    lines = [f"RSA-OAEP with {status.get('oaepHash')}", *str(status["publicKey"]).splitlines()]
    return "\n" + "".join(printable(line) + "\n" for line in lines)


def _structured(value: Mapping[str, Any], output_format: str) -> str:
    if output_format == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return yamltext.dump(yamltext.from_json(value), Indentation())
