# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(slots=True)
class ClusterOptions:
    """How to reach the cluster, as given on the command line; None where nothing was given."""

    kubeconfig: str | None = None
    kube_context: str | None = None
    namespace: str | None = None
    request_timeout: float = 30.0
    """Seconds one request may take, connecting included; 0 means no limit."""
    impersonate: str | None = None


def cluster_options(function: _Function) -> _Function:
    """The options of `ClusterOptions`, before or behind the verb (the later one counts). Read them with
    `click.get_current_context().find_object(ClusterOptions)` or `@click.pass_obj`."""
    for option in (
        click.option("--as", "impersonate", metavar="USER", help="User to impersonate.", **_STORED),
        click.option(
            "--request-timeout",
            metavar="TIME",
            help="Limit for one request: seconds, or 30s, 2m; 0 for none. [default: 30s]",
            **_STORED,
        ),
        click.option("-n", "--namespace", metavar="NS", help="Namespace.", **_STORED),
        click.option("--kube-context", metavar="NAME", help="Context of the kubeconfig to use.", **_STORED),
        click.option(
            "--kubeconfig", metavar="FILE", help="Kubeconfig. [default: $KUBECONFIG, ~/.kube/config]", **_STORED
        ),
    ):
        function = option(function)
    return function


def input_option(function: _Function) -> _Function:
    """`-f FILE|-|DIR`, repeatable, as `filenames`."""
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        metavar="FILE|-|DIR",
        help="Manifests to read, YAML or JSON; a directory is read recursively. Repeatable. [default: stdin]",
    )(function)


def format_option(*formats: str) -> Callable[[_Function], _Function]:
    """`-o FORMAT`, as `output_format`; the first one is the default."""
    return click.option(
        "-o",
        "--output",
        "output_format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="Format.",
    )


def _store(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    options = ctx.ensure_object(ClusterOptions)
    if value is None:
        return
    if parameter.name == "request_timeout":
        options.request_timeout = _seconds(value, ctx, parameter)
    else:
        assert parameter.name is not None
        setattr(options, parameter.name, value)


_STORED: dict[str, Any] = {"callback": _store, "expose_value": False}


def _seconds(text: str, ctx: click.Context, parameter: click.Parameter) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter("expected seconds or a time like 30s or 2m", ctx=ctx, param=parameter)
    return float(match[1]) * _SECONDS[match[2]]
