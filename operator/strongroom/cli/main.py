# SPDX-License-Identifier: Apache-2.0
"""Entry point of `strongroom` and `kubectl strongroom`: the verbs, and the edge where errors become exit codes."""

import importlib
import sys
import traceback
from pathlib import Path

import click

from strongroom.cli import exits, terminal
from strongroom.cli.exits import Exit
from strongroom.cli.failure import CommandError, invalid
from strongroom.cli.options import cluster_options
from strongroom.errors import Reason, StrongroomError

_VERBS = {
    "encrypt": "Turn Secret manifests into EncryptedSecret manifests.",
    "decrypt": "Turn EncryptedSecret manifests back into Secrets (needs keys/decrypt).",
    "inspect": "Show key id, version and size of encrypted values, offline.",
    "keys": "List and show the keys of a namespace.",
    "version": "Print the version of the client and what the server serves.",
}
"""Verb → its line in `--help`. The module `strongroom.cli.verbs.VERB` is imported when the verb is used; it holds the
command under the verb's name."""


class _Verbs(click.Group):
    """Loads a verb's module when it is used; the list in `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = getattr(importlib.import_module(f"strongroom.cli.verbs.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        command.epilog = exits.HELP
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Verbs, epilog=exits.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@cluster_options
def strongroom() -> None:
    """Encrypt Kubernetes Secrets with a key that never leaves the HSM, so that Git holds only ciphertext.

    \b
    Example:
      kubectl create secret generic db -n shop --from-file=password --dry-run=client -o yaml \\
        | strongroom encrypt --key prod > db.yaml
      kubectl apply -f db.yaml
    """


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:], program=_program_name(sys.argv[0])))


def run(arguments: list[str], *, program: str = "strongroom") -> int:
    """Run one command line; returns the exit code. Never raises: every failure becomes lines on stderr."""
    try:
        result = strongroom.main(args=arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit:  # click's only one without standalone mode: stdout is a closed pipe
        return Exit.BROKEN_PIPE
    except StrongroomError as error:
        terminal.report(error)
        return exits.exit_of(error.reason)
    except OSError as error:
        terminal.report(
            invalid(
                f"{error.strerror or type(error).__name__}: {error.filename or 'standard output'}",
                hint="Check the path, its permissions and the free space",
            )
        )
        return Exit.ERROR
    except Exception as error:
        terminal.report(_unexpected(error))
        return Exit.ERROR
    return result if isinstance(result, int) else Exit.OK


def _unexpected(error: Exception) -> CommandError:
    """A defect of ours. Only type and line are shown: the text of an exception can quote a value."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return CommandError(
        Reason.INTERNAL,
        f"unexpected {type(error).__name__} at {Path(frame.filename).name} line {frame.lineno}",
        hint="Please report it with the command line and the output of 'strongroom version'",
    )


def _program_name(argv0: str) -> str:
    """`kubectl strongroom` when called as a kubectl plugin, so that usage lines can be copied."""
    name = Path(argv0).stem
    return name.replace("-", " ", 1) if name.startswith("kubectl-") else "strongroom"
