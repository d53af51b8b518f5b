"""Kinds of values on the command line, and the options that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import click

from airflow_provider_chatexport.core.arguments import GIVE_LAKE, require_text
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions, parse_promote
from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.core.window import parse_moment
from airflow_provider_chatexport.errors import ChatExportError

# The variable that holds the key which pseudonyms of users are made with.
PSEUDONYM_KEY: Final = "CHATEXPORT_PSEUDONYM_KEY"
LONGEST: Final = timedelta(days=36_525)

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """``90s``, ``15m``, ``36h``, ``7d``."""

    name = "duration"
    _UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration; write 90s, 15m, 36h or 7d", param, ctx)
        try:
            duration = timedelta(**{self._UNITS[match.group(2)]: float(match.group(1))})
        except OverflowError:
            duration = timedelta.max
        if duration > LONGEST:
            self.fail(f"{value!r} is longer than a century; write a shorter one", param, ctx)
        return duration


class Limit(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A count, or a share as ``0.5%``."""

    name = "count or share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is neither a count nor a share; write 10 or 0.5%", param, ctx)
        return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


class Moment(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """ISO 8601 with an offset; a date alone is its UTC midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = parse_moment(value, (param.name if param else None) or "time")
        except ChatExportError as error:
            self.fail(error.message, param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write {value}Z or another offset", param, ctx)
        if not EARLIEST.year < moment.year < LATEST.year:
            self.fail(f"{value!r} is at the calendar's end; write a year between 2 and 9998", param, ctx)
        return moment


lake_option = click.option(
    "--lake",
    required=True,
    metavar="URI",
    callback=lambda _ctx, _param, value: require_text(value, "--lake", GIVE_LAKE),
    help="The lake: a folder, or an address such as s3://...",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")


def service_options(function: _Function) -> _Function:
    """Options that say which service, by the variables that the official SDKs use."""
    for option in (
        click.option("--base-url", envvar="STREAM_BASE_URL", help="Address of the service, or of a sandbox."),
        click.option("--api-secret", envvar="STREAM_API_SECRET", help="API secret; better in STREAM_API_SECRET."),
        click.option("--api-key", envvar="STREAM_API_KEY", help="API key; better in STREAM_API_KEY."),
    ):
        function = option(function)
    return function


def load_options(function: _Function) -> _Function:
    """Options of ``LoadOptions``, for the commands that load."""
    for option in (
        click.option(
            "--sink",
            type=click.Choice(["parquet"]),
            default="parquet",
            show_default=True,
            expose_value=False,
            help="How the lake is kept; there is no other way yet.",
        ),
        click.option("--drop-text", is_flag=True, help="Leave out what people wrote."),
        click.option("--hash-users", is_flag=True, help="Pseudonyms for user ids; needs CHATEXPORT_PSEUDONYM_KEY."),
        click.option("--keep-superseded", is_flag=True, help="Keep what newer exports replace, for messages_history."),
        click.option("--accept-shrink", is_flag=True, help="Load even if a channel that had messages has none now."),
        click.option(
            "--promote",
            multiple=True,
            metavar="TABLE.KEY=TYPE",
            help="A custom field as a typed column: messages.priority=BIGINT. May be given many times.",
        ),
        click.option("--max-unpacked-bytes", type=int, help="Refuse packed files that unpack to more."),
        click.option(
            "--max-line-bytes", type=int, default=MAX_LINE_BYTES, show_default=True, help="Longer lines are rejects."
        ),
        click.option("--max-rejected", type=Limit(), help="Fail if more cannot become rows: a count, or 0.1%."),
        click.option("--strict", is_flag=True, help="Fail if any line cannot become a row; as --max-rejected 0."),
    ):
        function = option(function)
    return function


def options_from(given: dict[str, Any]) -> LoadOptions:
    return LoadOptions(
        max_rejected=0 if given["strict"] else given["max_rejected"],
        accept_shrink=given["accept_shrink"],
        keep_superseded=given["keep_superseded"],
        promote=parse_promote(given["promote"]),
        max_line_bytes=given["max_line_bytes"],
        max_unpacked_bytes=given["max_unpacked_bytes"],
        hash_users=given["hash_users"],
        pseudonym_key=os.environ.get(PSEUDONYM_KEY),
        drop_text=given["drop_text"],
    )
