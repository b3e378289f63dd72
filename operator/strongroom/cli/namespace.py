# SPDX-License-Identifier: Apache-2.0
"""Which namespace an object belongs to: its own, else -n, else that of the kubeconfig's context."""

from strongroom.cli import names
from strongroom.cli.cluster import Cluster
from strongroom.cli.failure import Place, invalid
from strongroom.cli.options import ClusterOptions


def of_manifest(in_manifest: str, options: ClusterOptions, cluster: Cluster, place: Place) -> tuple[str, str]:
    """(namespace, where it comes from). Raises CommandError if manifest and -n differ."""
    if not in_manifest:
        return of_command(options, cluster)
    if options.namespace and options.namespace != in_manifest:
        raise invalid(
            f"the manifest is for namespace {in_manifest}, -n says {options.namespace}",
            hint="Leave -n out, or change the manifest",
            place=place,
        )
    return in_manifest, "from the manifest"


def of_command(options: ClusterOptions, cluster: Cluster) -> tuple[str, str]:
    """(namespace, where it comes from) where no manifest names one."""
    if options.namespace:
        return names.check_namespace(options.namespace), "from -n"
    return cluster.namespace, "from the kubeconfig's context"
