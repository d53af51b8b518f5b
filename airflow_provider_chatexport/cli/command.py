"""Commands and groups of commands, with help pages that are whole at any width, and suggestions for what was meant."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import click

from airflow_provider_chatexport.cli.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    _Decorator = Callable[[Callable[..., Any]], click.Command]


class _HelpPage(click.Command):
    """A help page that keeps its example on one line: people copy it into a shell."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's names
        label, _, example = (self.epilog or "").partition(": ")
        if example:
            formatter.write_paragraph()
            formatter.write(f"{label}:\n  {example}\n")


def _log_stages(_ctx: click.Context, _option: click.Parameter, is_on: bool) -> None:  # noqa: FBT001 - click's callback
    if is_on:
        logging.getLogger().setLevel(logging.INFO)


_VERBOSE: Final = click.Option(["-v", "--verbose"], is_flag=True, hidden=True, expose_value=False, callback=_log_stages)


class Command(_HelpPage):
    """A command."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Take ``-v`` after the command as well as before it: that is where people add it."""
        return [*super().get_params(ctx), _VERBOSE]


class Group(_HelpPage, click.Group):
    """A group of commands."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does, on as many lines as it takes. Click would cut it to one."""
        rows = [
            (name, command.get_short_help_str(limit=1000))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Click's own suggestions know only commands that are imported already."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            raise click.UsageError(f"No such command '{name}'.{did_you_mean(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def command(**settings: Any) -> _Decorator:
    """Return a decorator that makes a command of a function. The settings are those of ``click.command``."""
    return click.command(**({"cls": Command} | settings))
