"""``chatexport`` in the terminal: the sandbox, exports without Airflow, loads, looks at the lake and its upkeep.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. An error is one sentence on stderr. With ``--json`` there
is one JSON object on stdout and nothing else.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Final

import click

from airflow_provider_chatexport import __version__
from airflow_provider_chatexport.errors import CallError, ChatExportError

EXIT_FAILED: Final = 1
EXIT_WRONG_CALL: Final = 2

# Command -> module and name. Modules are loaded on use: a query need not wait for the sandbox's web server, nor a
# load for the HTTP client.
_COMMANDS: Final = {
    "sandbox": ("sandbox", "sandbox"),
    "export": ("export", "export"),
    "load": ("load", "load"),
    "coverage": ("inspect", "show_coverage"),
    "verify": ("inspect", "verify_lake"),
    "sql": ("inspect", "run_sql"),
    "compact": ("maintenance", "compact_lake"),
    "vacuum": ("maintenance", "vacuum_lake"),
    "forget-user": ("maintenance", "forget"),
    "catalog": ("maintenance", "write_catalog"),
    "dbt": ("dbt", "dbt"),
    "plan": ("plan", "plan"),
}


class _Commands(click.Group):
    """The commands in the order of their use, each loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys([*_COMMANDS, *super().list_commands(ctx)]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, name = _COMMANDS[cmd_name]
            self.add_command(getattr(importlib.import_module(f"{__name__}.{module}"), name), cmd_name)
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: chatexport load export.ndjson.gz --lake ./lake",
)
@click.version_option(__version__, prog_name="chatexport")
@click.option("-v", "--verbose", is_flag=True, help="Log each stage to stderr.")
def cli(*, verbose: bool) -> None:
    """Stream Chat exports as a Parquet lake that people query."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr
    )


# What the same settings are called in Python; messages are made there.
_ARGUMENTS: Final = re.compile(r"\b(max_unpacked_bytes|max_line_bytes|max_rejected|wait_timeout|hash_users)\b")


def _as_option(argument: re.Match[str]) -> str:
    return "--" + argument.group().replace("_", "-")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    if not sys.warnoptions:
        # Warnings of libraries, such as of a short API secret, are for developers; errors have sentences of their own.
        warnings.simplefilter("ignore")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what its encoding lacks
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
        # Whoever read our output has gone.
        _drop_output()
        sys.exit(EXIT_FAILED)
    except ChatExportError as error:
        click.echo(f"chatexport: {_ARGUMENTS.sub(_as_option, error.message)}", err=True)
        sys.exit(EXIT_WRONG_CALL if isinstance(error, CallError) else EXIT_FAILED)
    except Exception as error:  # the last line of defence: a traceback helps nobody who did not write the code
        if isinstance(error, RuntimeError) and "interrupted" in str(error):  # what DuckDB makes of Ctrl-C in a query
            click.echo("stopped", err=True)
            sys.exit(EXIT_FAILED)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # files have names, stdout has none
            _drop_output()
            click.echo(f"chatexport: cannot print to stdout: {error.strerror}; make room where it goes", err=True)
            sys.exit(EXIT_FAILED)
        if os.environ.get("CHATEXPORT_DEBUG"):
            raise
        click.echo(
            f"chatexport: an error inside chatexport ({type(error).__name__}); run again with CHATEXPORT_DEBUG=1 and "
            "report what it prints",
            err=True,
        )
        sys.exit(EXIT_FAILED)


def _wrong_call(error: click.ClickException) -> str:
    told = error.format_message()
    if told.startswith("Usage: "):  # the whole help, of a command that wants another one after it
        return told
    command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "chatexport"
    return f"chatexport: {told.rstrip('.')}; see {command} --help"


def _drop_output() -> None:
    """Closing stdout at exit would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
