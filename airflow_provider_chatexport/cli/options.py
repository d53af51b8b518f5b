"""Types of values on the command line, and the options that several commands share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from airflow_provider_chatexport.core.arguments import (
    DURATION_EXAMPLES,
    GIVE_LAKE,
    SEPARATE_BY_COMMAS,
    parse_duration_text,
    parse_names,
    require_text,
)
from airflow_provider_chatexport.core.discovery import ChannelQuery
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions, parse_promote
from airflow_provider_chatexport.core.plan import A_CHANNEL, Cid, ExportFlags, parse_cid
from airflow_provider_chatexport.core.retention import RetentionOption, parse_retention
from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.core.window import parse_moment
from airflow_provider_chatexport.errors import CallError, ChatExportError

if TYPE_CHECKING:
    from airflow_provider_chatexport.api.client import ChatExportClient

# The variable with the key from which pseudonyms of users are computed.
PSEUDONYM_KEY: Final = "CHATEXPORT_PSEUDONYM_KEY"
LONGEST: Final = timedelta(days=36_525)

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A duration: ``90s``, ``15m``, ``36h``, ``7d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration."""
        duration = value if isinstance(value, timedelta) else parse_duration_text(str(value))
        if duration is None:
            self.fail(f"{value!r} is not a duration; write {DURATION_EXAMPLES}", param, ctx)
        if duration > LONGEST:
            self.fail(f"{value!r} is longer than a century; write a shorter one", param, ctx)
        return duration


class Limit(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A count such as ``10``, or a share such as ``0.5%``."""

    name = "count or share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """Return a count as an int, and a share as a float."""
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is neither a count nor a share; write 10 or 0.5%", param, ctx)
        return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


class RetentionType(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """How long the service keeps messages: a duration, or ``service`` to ask it."""

    name = "duration or service"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RetentionOption:
        """Return the retention."""
        try:
            return parse_retention(value)
        except CallError as error:
            self.fail(error.message, param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A time: ISO 8601 with an offset. A date alone is its UTC midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time, aware."""
        try:
            moment = parse_moment(value, (param.name if param else None) or "time")
        except ChatExportError as error:
            self.fail(error.message, param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write {value}Z or another offset", param, ctx)
        if not EARLIEST <= moment < LATEST:
            years = f"{EARLIEST.year} to {LATEST.year - 1}"
            self.fail(f"{value!r} is outside of a lake's calendar; write a time of the years {years}", param, ctx)
        return moment


class Query(click.ParamType):  # type: ignore[type-arg] # a generic since click 8.4
    """A query for channels: the service's filter conditions, as a JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ChannelQuery:
        """Return the query."""
        if isinstance(value, ChannelQuery):
            return value
        try:
            conditions = json.loads(value)
        except ValueError:
            conditions = None
        if not isinstance(conditions, dict):
            self.fail('the filter conditions are not a JSON object; write \'{"type": "team"}\'', param, ctx)
        return ChannelQuery(filter_conditions=conditions)


lake_option = click.option(
    "--lake",
    required=True,
    metavar="URI",
    callback=lambda _ctx, _param, value: require_text(value, "--lake", GIVE_LAKE),
    help="Address of the lake: a folder, or an address such as s3://bucket/lake.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout, and nothing else.")


def service_options(function: _Function) -> _Function:
    """Add the options for the service, with the variables that the official SDKs use."""
    for option in (
        click.option(
            "--base-url", envvar="STREAM_BASE_URL", show_envvar=True, help="Address of the service, or of a sandbox."
        ),
        click.option(
            "--api-secret",
            envvar="STREAM_API_SECRET",
            show_envvar=True,
            help="API secret. Prefer the variable: other users of the machine can see arguments.",
        ),
        click.option("--api-key", envvar="STREAM_API_KEY", show_envvar=True, help="API key."),
    ):
        function = option(function)
    return function


def channel_options(function: _Function) -> _Function:
    """Add the options that say which channels to export."""
    for option in (
        click.option(
            "--query",
            type=Query(),
            help="Export the channels that a query finds at the service: its filter conditions, as a JSON object. {} "
            "finds every channel. No query finds soft-deleted channels: name them with --channel as well.",
        ),
        click.option(
            "--channel",
            "channels",
            multiple=True,
            metavar="TYPE:ID",
            help="A channel to export, or several separated by commas. May be repeated.",
        ),
    ):
        function = option(function)
    return function


def export_options(function: _Function) -> _Function:
    """Add the options of an export of channels, as the service names them, and how long to wait for it."""
    for option in (
        click.option(
            "--wait-timeout",
            type=Duration(),
            default="2h",
            show_default=True,
            help="Fail if an export is not done after this time.",
        ),
        click.option(
            "--export-version",
            type=click.Choice(["v1", "v2"]),
            default="v2",
            show_default=True,
            help="Format of the export.",
        ),
        click.option(
            "--export-users/--no-export-users",
            default=True,
            show_default=True,
            help="Export also the channels' users. Without them, the lake may have no names. v1 has them in any case.",
        ),
        click.option("--clear-deleted-message-text", is_flag=True, help="Leave out the text of deleted messages."),
        click.option("--include-soft-deleted-channels", is_flag=True, help="Export also soft-deleted channels."),
        click.option(
            "--include-truncated-messages", is_flag=True, help="Export also messages that a truncation hides."
        ),
    ):
        function = option(function)
    return function


def flags_from(arguments: dict[str, Any]) -> ExportFlags:
    """Return the flags that ``export_options`` added.

    :raises CallError: the time to wait is zero.
    """
    if not arguments["wait_timeout"]:
        raise CallError("--wait-timeout is zero; give an export some time, such as 2h")
    return ExportFlags(
        version=arguments["export_version"],
        include_truncated_messages=arguments["include_truncated_messages"],
        include_soft_deleted_channels=arguments["include_soft_deleted_channels"],
        clear_deleted_message_text=arguments["clear_deleted_message_text"],
        export_users=arguments["export_users"] and arguments["export_version"] == "v2",
    )


def named_channels(arguments: dict[str, Any]) -> list[Cid]:
    """Return the channels of ``--channel``.

    :raises CallError: one is not ``TYPE:ID``.
    """
    return [
        parse_cid(name)
        for value in arguments["channels"]
        for name in parse_names(value, "--channel", A_CHANNEL, remedy=SEPARATE_BY_COMMAS)
    ]


def chosen_channels(arguments: dict[str, Any], client: ChatExportClient) -> list[Cid]:
    """Return the channels of ``--channel`` and ``--query``. A query is sent to the service.

    :raises CallError: the query finds no channel, and none is named.
    :raises ServiceError: the query failed.
    """
    channels = named_channels(arguments)
    if arguments["query"] is not None:
        channels += client.find_channels(arguments["query"])
        if not channels:
            raise CallError("the query finds no channel; check its conditions")
    return channels


def load_options(function: _Function) -> _Function:
    """Add the options of ``LoadOptions``, for the commands that load."""
    for option in (
        click.option(
            "--sink",
            type=click.Choice(["parquet"]),
            default="parquet",
            show_default=True,
            expose_value=False,
            help="Format of the lake's tables. There is only one yet.",
        ),
        click.option("--drop-text", is_flag=True, help="Leave out the text that people wrote."),
        click.option("--hash-users", is_flag=True, help="Pseudonymize user ids; needs CHATEXPORT_PSEUDONYM_KEY."),
        click.option(
            "--keep-superseded", is_flag=True, help="Keep the load for messages_history once it is superseded."
        ),
        click.option(
            "--retention",
            type=RetentionType(),
            help="How long the service keeps messages, by the app's retention policies: 30d, 720h, or service to ask "
            "it. The load claims nothing about older messages, and the lake keeps those that it has.",
        ),
        click.option(
            "--max-vanished",
            type=Limit(),
            help="Fail if more messages of the lake would vanish, because the load covers them and does not contain "
            "them: a count, or 0.5% of those that the lake shows there.",
        ),
        click.option("--accept-shrink", is_flag=True, help="Load even if a channel that has messages would have none."),
        click.option(
            "--promote",
            multiple=True,
            metavar="TABLE.KEY=TYPE",
            help="Add a typed column for a custom field: messages.priority=BIGINT. Repeat the option for several.",
        ),
        click.option(
            "--no-auto-compact",
            is_flag=True,
            help="Do not merge small files that earlier loads have left behind. It costs about as much as the load.",
        ),
        click.option("--max-unpacked-bytes", type=int, help="Refuse a gzip file that unpacks to more bytes."),
        click.option(
            "--max-line-bytes", type=int, default=MAX_LINE_BYTES, show_default=True, help="Reject longer lines."
        ),
        click.option(
            "--max-rejected",
            type=Limit(),
            default="50%",
            show_default=True,
            help="Fail, and load nothing, if more lines are rejected: a count, or a share such as 0.1%.",
        ),
        click.option("--strict", is_flag=True, help="Fail if any line is rejected; the same as --max-rejected 0."),
    ):
        function = option(function)
    return function


def options_from(arguments: dict[str, Any]) -> LoadOptions:
    """Return the options that ``load_options`` added.

    :raises CallError: a value is out of range.
    """
    return LoadOptions(
        max_rejected=0 if arguments["strict"] else arguments["max_rejected"],
        max_vanished=arguments["max_vanished"],
        retention=arguments["retention"],
        accept_shrink=arguments["accept_shrink"],
        keep_superseded=arguments["keep_superseded"],
        promote=parse_promote(arguments["promote"]),
        max_line_bytes=arguments["max_line_bytes"],
        max_unpacked_bytes=arguments["max_unpacked_bytes"],
        hash_users=arguments["hash_users"],
        pseudonym_key=os.environ.get(PSEUDONYM_KEY),
        drop_text=arguments["drop_text"],
        auto_compact=not arguments["no_auto_compact"],
    )
