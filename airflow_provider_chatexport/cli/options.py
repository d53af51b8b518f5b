"""The options that several commands share, and what their arguments mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from airflow_provider_chatexport.cli.values import Duration, Limit, Query, RetentionType
from airflow_provider_chatexport.core.arguments import GIVE_LAKE, SEPARATE_BY_COMMAS, parse_names, require_text
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions, parse_promote
from airflow_provider_chatexport.core.plan import A_CHANNEL, Cid, ExportFlags, parse_cid
from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import CallError

if TYPE_CHECKING:
    from airflow_provider_chatexport.api.client import ChatExportClient
    from airflow_provider_chatexport.api.settings import ServiceSettings

# The variable with the address of the lake, for those who work with one lake.
LAKE_VARIABLE: Final = "CHATEXPORT_LAKE"
# The variable with the key from which pseudonyms of users are computed.
PSEUDONYM_KEY: Final = "CHATEXPORT_PSEUDONYM_KEY"

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Decorator = Callable[[_Function], _Function]


def _stack(*options: _Decorator[Any]) -> _Decorator[Any]:
    """Return a decorator that adds options to a command, in this order."""

    def add(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _lake_option(*, required: bool) -> _Decorator[Any]:
    return click.option(
        "--lake",
        required=required,
        metavar="URI",
        envvar=LAKE_VARIABLE,
        show_envvar=True,
        callback=lambda _ctx, _param, value: None if value is None else require_text(value, "--lake", GIVE_LAKE),
        help="Address of the lake: a folder, or an address such as s3://bucket/lake.",
    )


lake_option = _lake_option(required=True)
optional_lake_option = _lake_option(required=False)
yes_option = click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout, and nothing else.")

# The service, with the variables that the official SDKs use.
service_options = _stack(
    click.option("--api-key", envvar="STREAM_API_KEY", show_envvar=True, help="API key."),
    click.option(
        "--api-secret",
        envvar="STREAM_API_SECRET",
        show_envvar=True,
        help="API secret. Prefer the variable: other users of the machine can see arguments.",
    ),
    click.option(
        "--base-url", envvar="STREAM_BASE_URL", show_envvar=True, help="Address of the service, or of a sandbox."
    ),
)

# Which channels to export.
channel_options = _stack(
    click.option(
        "--channel",
        "channels",
        multiple=True,
        metavar="TYPE:ID",
        help="A channel to export, or several separated by commas. May be repeated.",
    ),
    click.option(
        "--query",
        type=Query(),
        help="Export the channels that a query finds at the service: its filter conditions, as a JSON object. {} finds "
        "every channel. No query finds soft-deleted channels: name them with --channel as well.",
    ),
)

# The fields of ``LoadOptions``.
load_options = _stack(
    click.option("--strict", is_flag=True, help="Fail if any line is rejected; the same as --max-rejected 0."),
    click.option(
        "--max-rejected",
        type=Limit(),
        default="50%",
        show_default=True,
        help="Fail, and load nothing, if more lines are rejected: a count, or a share such as 0.1%.",
    ),
    click.option("--max-line-bytes", type=int, default=MAX_LINE_BYTES, show_default=True, help="Reject longer lines."),
    click.option("--max-unpacked-bytes", type=int, help="Refuse a gzip file that unpacks to more bytes."),
    click.option(
        "--promote",
        multiple=True,
        metavar="TABLE.KEY=TYPE",
        help="Add a typed column for a custom field: messages.priority=BIGINT. Repeat the option for several.",
    ),
    click.option("--accept-shrink", is_flag=True, help="Load even if a channel that has messages would have none."),
    click.option(
        "--max-vanished",
        type=Limit(),
        help="Fail if more messages of the lake would vanish, because the load covers them and does not contain them: "
        "a count, or 0.5% of those that the lake shows there.",
    ),
    click.option(
        "--retention",
        type=RetentionType(),
        help="How long the service keeps messages, by the app's retention policies: 30d, 720h, or service to ask it. "
        "The load claims nothing about older messages, and the lake keeps those that it has.",
    ),
    click.option("--keep-superseded", is_flag=True, help="Keep the load for messages_history once it is superseded."),
    click.option("--hash-users", is_flag=True, help="Pseudonymize user ids; needs CHATEXPORT_PSEUDONYM_KEY."),
    click.option("--drop-text", is_flag=True, help="Leave out the text that people wrote."),
    click.option(
        "--no-auto-compact",
        is_flag=True,
        help="Do not merge small files that earlier loads have left behind. Merging costs about as much as the load.",
    ),
    click.option(
        "--sink",
        type=click.Choice([each.value for each in Sink]),
        default=Sink.PARQUET.value,
        show_default=True,
        help="Publish the lake in this format after the load, as `chatexport publish` does. With parquet, the lake's "
        "own files are all there is.",
    ),
)

# What the commands that export and load take, apart from what they export: the lake, the service, the flags of an
# export as the service names them, how long to wait for it, and how to load it.
export_and_load_options = _stack(
    lake_option,
    service_options,
    click.option("--include-truncated-messages", is_flag=True, help="Export also messages that a truncation hides."),
    click.option("--include-soft-deleted-channels", is_flag=True, help="Export also soft-deleted channels."),
    click.option("--clear-deleted-message-text", is_flag=True, help="Leave out the text of deleted messages."),
    click.option(
        "--export-users/--no-export-users",
        default=True,
        show_default=True,
        help="Export also the channels' users. Without them, the lake may have no names. v1 has them in any case.",
    ),
    click.option(
        "--export-version",
        type=click.Choice(["v1", "v2"]),
        default="v2",
        show_default=True,
        help="Format of the export.",
    ),
    click.option(
        "--wait-timeout",
        type=Duration(),
        default="2h",
        show_default=True,
        help="Fail if an export is not done after this time.",
    ),
    load_options,
    json_option,
)


def lookback_option(help_text: str) -> _Decorator[Any]:
    """Return the option for what is exported once more, for late edits and deletes."""
    return click.option("--lookback", type=Duration(), default="0s", show_default=True, help=help_text)


def settings_from(arguments: dict[str, Any]) -> ServiceSettings:
    """Return how to reach the service.

    :raises ConnectionSettingsError: the key or the secret is missing, or the address is malformed.
    """
    # Commands without a connection use this module, too, and do not wait for the import of an HTTP client.
    from airflow_provider_chatexport.api.settings import ServiceSettings  # noqa: PLC0415

    return ServiceSettings.from_env(**{name: arguments[name] for name in ("api_key", "api_secret", "base_url")})


def flags_from(arguments: dict[str, Any]) -> ExportFlags:
    """Return the flags of an export.

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
