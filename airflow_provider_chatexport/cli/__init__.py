"""The command line, ``chatexport``: exports without Airflow, loads, queries, maintenance, and the sandbox.

Exit codes: 0 the work is done, 1 the work failed, 2 the call was wrong. An error is one sentence on stderr. With
``--json``, a command prints one JSON object, and nothing else, to stdout.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Final

import click

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.cli.command import Group
from airflow_provider_chatexport.errors import CallError, ChatExportError

EXIT_FAILED: Final = 1
EXIT_WRONG_CALL: Final = 2

# Command -> module and function. A module is imported when its command is called: a query does not wait for the
# sandbox's web server, and a load does not wait for the HTTP client.
_COMMANDS: Final = {
    "sandbox": ("sandbox", "sandbox"),
    "export": ("export", "export"),
    "load": ("load", "load"),
    "sync": ("sync", "sync_lake"),
    "coverage": ("inspect", "show_coverage"),
    "verify": ("inspect", "verify_lake"),
    "sql": ("sql", "run_sql"),
    "tables": ("sql", "show_tables"),
    "compact": ("maintenance", "compact_lake"),
    "publish": ("publish", "publish_lake"),
    "repair": ("repair", "repair_lake"),
    "vacuum": ("maintenance", "vacuum_lake"),
    "forget-user": ("maintenance", "forget"),
    "catalog": ("maintenance", "write_catalog"),
    "redact": ("redact", "redact"),
    "dbt": ("dbt", "dbt"),
    "plan": ("plan", "plan"),
    "doctor": ("doctor", "doctor"),
}


class _Commands(Group):
    """The commands, in the order in which people use them. Each is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys([*_COMMANDS, *super().list_commands(ctx)]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, name = _COMMANDS[cmd_name]
            self.add_command(getattr(importlib.import_module(f"{__name__}.{module}"), name), cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Example: chatexport load export.ndjson.gz --lake ./lake",
)
@click.version_option(__version__, prog_name="chatexport")
@click.option("-v", "--verbose", is_flag=True, help="Log every stage to stderr.")
def cli(*, verbose: bool) -> None:
    """Load Stream Chat exports into a Parquet lake, and query it."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit: the console script.

    :param arguments: what is typed after ``chatexport``; by default the process's own arguments.
    """
    if not sys.warnoptions:
        # Warnings of libraries, such as the one about a short API secret, are for developers.
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for what its encoding lacks
    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        click.echo(_wrong_call(error), err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(EXIT_FAILED)
    except BrokenPipeError:
        # The process that read our output has ended, as in ``chatexport sql ... | head``.
        _drop_output()
        sys.exit(EXIT_FAILED)
    except ChatExportError as error:
        click.echo(f"chatexport: {_as_typed(error)}", err=True)
        sys.exit(EXIT_WRONG_CALL if isinstance(error, CallError) else EXIT_FAILED)
    except Exception as error:  # a traceback would help only those who wrote the code
        if isinstance(error, RuntimeError) and "interrupted" in str(error):  # DuckDB's error for Ctrl-C in a query
            click.echo("stopped", err=True)
            sys.exit(EXIT_FAILED)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of stdout: files have a name
            _drop_output()
            click.echo(f"chatexport: cannot print to stdout: {error.strerror}; make room where it is written", err=True)
            sys.exit(EXIT_FAILED)
        if os.environ.get("CHATEXPORT_DEBUG"):
            raise
        click.echo(
            f"chatexport: an error inside chatexport ({type(error).__name__}); run again with CHATEXPORT_DEBUG=1 and "
            "report what it prints",
            err=True,
        )
        sys.exit(EXIT_FAILED)


def _as_typed(error: ChatExportError) -> str:
    """Return the error's sentence with the argument that it names written as an option."""
    if error.argument is None:
        return error.message
    return error.message.replace(error.argument, "--" + error.argument.replace("_", "-"))


def _wrong_call(error: click.ClickException) -> str:
    """Return what to print for a call that click refuses."""
    message = error.format_message()
    if message.startswith("Usage: "):  # the whole help page, of a command that needs a subcommand
        return message
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "chatexport"
    if message.endswith("?"):  # a suggestion
        return f"chatexport: {message} See {command} --help"
    return f"chatexport: {message.rstrip('.')}; see {command} --help"


def _drop_output() -> None:
    """Point stdout to nowhere, because Python flushes it at exit and would fail a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
