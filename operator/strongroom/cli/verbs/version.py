# SPDX-License-Identifier: Apache-2.0
"""`strongroom version`: the client's version, and the API versions the cluster serves."""

import json
from typing import Any

import click

from strongroom import __version__
from strongroom.cli import keysapi, output, terminal
from strongroom.cli.cluster import Cluster
from strongroom.cli.failure import CommandError
from strongroom.cli.options import ClusterOptions, cluster_options, format_option
from strongroom.cli.printable import printable
from strongroom.model.labels import CRYPTO_API_VERSION


@click.command()
@format_option("text", "json")
@click.option("--client", "client_only", is_flag=True, help="Do not ask the cluster.")
@cluster_options
@click.pass_context
def version(ctx: click.Context, output_format: str, client_only: bool) -> None:
    """Print the version of this client and which API versions the cluster serves.

    \b
    Examples:
      strongroom version
      strongroom version --client -o json
    """
    answer: dict[str, Any] = {"client": {"version": __version__, "apiVersion": CRYPTO_API_VERSION}}
    if not client_only:
        answer["server"] = {"apiVersions": _served(Cluster(ctx.ensure_object(ClusterOptions)))}
    if output_format == "json":
        output.write(json.dumps(answer, indent=2) + "\n")
        return
    output.write(f"Client: {__version__} ({CRYPTO_API_VERSION})\n")
    if not client_only:
        served = answer["server"]["apiVersions"]
        output.write(f"Server: {printable(', '.join(served)) if served else 'not reachable'}\n")


def _served(cluster: Cluster) -> list[str]:
    """API versions of the crypto group; empty, with a warning, if it cannot be asked."""
    try:
        versions = cluster.get(keysapi.DISCOVERY_PATH).get("versions") or []
    except CommandError as error:
        terminal.warn(error.message)
        return []
    served = [str(entry.get("groupVersion")) for entry in versions]
    if CRYPTO_API_VERSION not in served:
        terminal.warn(f"the cluster does not serve {CRYPTO_API_VERSION}: client and server do not fit")
    return served
