"""``chatexport`` in the terminal: the sandbox, exports without Airflow, loads, and looks at the lake.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. An error is one sentence on stderr. With ``--json`` there
is one JSON object on stdout and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from airflow_provider_chatexport import __version__, pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.api.watch import Watch, watch_exports
from airflow_provider_chatexport.core.entities import ExportKind, Shape
from airflow_provider_chatexport.core.options import MAX_LINE_BYTES, LoadOptions, parse_promote
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window, parse_moment
from airflow_provider_chatexport.errors import CallError, ChatExportError, LakeError
from airflow_provider_chatexport.lake import catalog, query
from airflow_provider_chatexport.lake.compact import compact
from airflow_provider_chatexport.lake.forget import forget_user
from airflow_provider_chatexport.lake.settle import settle
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.vacuum import vacuum
from airflow_provider_chatexport.lake.verify import verify
from airflow_provider_chatexport.pipeline import LoadReport
from airflow_provider_chatexport.terminal import TerminalProgress, print_table

_Function = TypeVar("_Function", bound=Callable[..., Any])

EXIT_FAILED: Final = 1
EXIT_WRONG_CALL: Final = 2


class _Duration(click.ParamType[timedelta]):
    """``90s``, ``15m``, ``36h``, ``7d``."""

    name = "duration"
    _UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration; write 90s, 15m, 36h or 7d", param, ctx)
        return timedelta(**{self._UNITS[match.group(2)]: float(match.group(1))})


class _Limit(click.ParamType[float]):
    """A count, or a share as ``0.5%``."""

    name = "count or share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is neither a count nor a share; write 10 or 0.5%", param, ctx)
        return int(match.group(1)) if match.group(1) else float(match.group(2)) / 100


class _Moment(click.ParamType[datetime]):
    """ISO 8601 with an offset; a date alone is its UTC midnight."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = parse_moment(value, (param.name if param else None) or "time")
        except ChatExportError as error:
            self.fail(error.message, param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write {value}Z or another offset", param, ctx)
        return moment


_lake = click.option("--lake", required=True, metavar="URI", help="The lake: a folder, or an address such as s3://...")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")


def _service(function: _Function) -> _Function:
    """Options that say which service, by the variables that the official SDKs use."""
    for option in (
        click.option("--base-url", envvar="STREAM_BASE_URL", help="Address of the service, or of a sandbox."),
        click.option("--api-secret", envvar="STREAM_API_SECRET", help="API secret; better in STREAM_API_SECRET."),
        click.option("--api-key", envvar="STREAM_API_KEY", help="API key; better in STREAM_API_KEY."),
    ):
        function = option(function)
    return function


def _load_options(function: _Function) -> _Function:
    """Options of ``LoadOptions``, for the commands that load."""
    for option in (
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
        click.option("--max-rejected", type=_Limit(), help="Fail if more cannot become rows: a count, or 0.1%."),
        click.option("--strict", is_flag=True, help="Fail if any line cannot become a row; as --max-rejected 0."),
    ):
        function = option(function)
    return function


def _options_from(given: dict[str, Any]) -> LoadOptions:
    return LoadOptions(
        max_rejected=0 if given["strict"] else given["max_rejected"],
        accept_shrink=given["accept_shrink"],
        keep_superseded=given["keep_superseded"],
        promote=parse_promote(given["promote"]),
        max_line_bytes=given["max_line_bytes"],
        max_unpacked_bytes=given["max_unpacked_bytes"],
        hash_users=given["hash_users"],
        pseudonym_key=os.environ.get("CHATEXPORT_PSEUDONYM_KEY"),
        drop_text=given["drop_text"],
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="chatexport")
@click.option("-v", "--verbose", is_flag=True, help="Log each stage to stderr.")
def cli(*, verbose: bool) -> None:
    """Stream Chat exports as a Parquet lake that people query."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr
    )


@cli.command(epilog="Example: chatexport sandbox --port 8900 --task-seconds 2")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8900, show_default=True, help="Port; 0 picks a free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Chat to serve instead of the corpus that ships.")
@click.option("--messages", type=int, help="Make this many messages instead.")
@click.option("--shape", type=click.Choice([shape.value for shape in Shape]), default="typed", show_default=True)
@click.option(
    "--bounds", type=click.Choice(["half-open", "inclusive", "exclusive"]), default="half-open", show_default=True
)
@click.option("--gzip", is_flag=True, help="Export files are gzip.")
@click.option("--task-seconds", type=float, default=1.0, show_default=True, help="How long an export takes.")
@click.option("--no-rate-limit", is_flag=True, help="Refuse nothing for coming too fast.")
def sandbox(**given: Any) -> None:
    """The service on localhost, with real chat in it: for demos, and to test your own DAGs."""
    # The sandbox brings a web server, which no other command needs to wait for.
    from airflow_provider_chatexport.sandbox.server import serve  # noqa: PLC0415
    from airflow_provider_chatexport.sandbox.settings import SandboxSettings  # noqa: PLC0415
    from airflow_provider_chatexport.sandbox.world import Bounds  # noqa: PLC0415

    settings = SandboxSettings(
        host=given["host"],
        port=given["port"],
        data=given["data"],
        messages=given["messages"],
        shape=Shape(given["shape"]),
        bounds=Bounds(given["bounds"]),
        gzip=given["gzip"],
        task_s=given["task_seconds"],
        rate_limit=not given["no_rate_limit"],
    )
    serve(settings, lambda url: click.echo(f"listening on {url}"))


@cli.command(
    epilog="Example: chatexport export --channel livestream:ubuntu --since 2025-01-01 --until 2025-01-02 --lake ./lake"
)
@click.option("--channel", "channels", multiple=True, required=True, metavar="TYPE:ID", help="May be given many times.")
@click.option("--since", type=_Moment(), required=True, help="Begin of the window, inside; ISO 8601.")
@click.option("--until", type=_Moment(), required=True, help="End of the window, outside.")
@_lake
@_service
@click.option("--include-truncated-messages", is_flag=True, help="Messages that a truncation hides, too.")
@click.option("--include-soft-deleted-channels", is_flag=True, help="Soft-deleted channels, too.")
@click.option("--clear-deleted-message-text", is_flag=True, help="Without the text of deleted messages.")
@click.option("--export-users", is_flag=True, help="The channels' users, too.")
@click.option("--export-version", type=click.Choice(["v1", "v2"]), default="v2", show_default=True)
@click.option("--lookback", type=_Duration(), default="0s", help="Export that much before the window again: 7d, 36h.")
@click.option("--wait-timeout", type=_Duration(), default="2h", show_default=True, help="How long an export may take.")
@_load_options
@_as_json
def export(**given: Any) -> None:
    """One window without Airflow: submit, wait, download, load."""
    options = _options_from(given)
    window = Window(since=given["since"], until=given["until"]).looking_back(given["lookback"])
    flags = ExportFlags(
        version=given["export_version"],
        include_truncated_messages=given["include_truncated_messages"],
        include_soft_deleted_channels=given["include_soft_deleted_channels"],
        clear_deleted_message_text=given["clear_deleted_message_text"],
        export_users=given["export_users"],
    )
    requests = plan_channels(given["channels"], window, flags)
    settings = ServiceSettings.from_env(
        api_key=given["api_key"], api_secret=given["api_secret"], base_url=given["base_url"]
    )
    # A lake that cannot be written is better found before an export is spent on it.
    LakeStore(given["lake"]).prepare()
    began = time.monotonic()
    with ChatExportClient(settings) as client, TerminalProgress() as progress:
        started_epoch_s = time.time()
        receipts = [Receipt(task_id=client.submit_channels(request), request=request) for request in requests]
        progress.say(f"waiting for {len(receipts)} export(s)")
        watch = Watch(
            [receipt.task_id for receipt in receipts],
            started_epoch_s=started_epoch_s,
            deadline_epoch_s=started_epoch_s + given["wait_timeout"].total_seconds(),
        )
        watch_exports(client, watch)
        report = pipeline.load_exports(
            client, receipts, lake_uri=given["lake"], options=options, progress=progress.stage
        )
    _print_report(replace(report, seconds=time.monotonic() - began), given["lake"], as_json=given["as_json"])


@cli.command(epilog="Example: chatexport load export.ndjson.gz --lake ./lake")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_lake
@click.option("--since", type=_Moment(), help="What the files cover, if you know: begin, inside.")
@click.option("--until", type=_Moment(), help="End, outside.")
@click.option("--exported-at", type=_Moment(), help="When the service made them; default: each file's own time.")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in ExportKind]),
    help="What they are exports of; default: told by what each file holds.",
)
@_load_options
@_as_json
def load(**given: Any) -> None:
    """Export files that are already here, into the lake: of channels (v1 or v2) or of users, plain or gzip."""
    options = _options_from(given)
    if (given["since"] is None) != (given["until"] is None):
        raise CallError("only one end of the window is given; give both --since and --until, or neither")
    window = Window(since=given["since"], until=given["until"]) if given["since"] else None
    with TerminalProgress() as progress:
        report = pipeline.load_files(
            given["files"],
            lake_uri=given["lake"],
            window=window,
            exported_at=given["exported_at"],
            kind=ExportKind(given["kind"]) if given["kind"] else None,
            options=options,
            progress=progress.stage,
        )
    _print_report(report, given["lake"], as_json=given["as_json"])


@cli.command(name="catalog", epilog="Example: chatexport catalog --lake ./lake")
@_lake
@_as_json
def write_catalog(*, lake: str, as_json: bool) -> None:
    """Writes catalog.duckdb anew from the records of loads, and puts the tables' folders in order."""
    store = LakeStore(lake)
    store.prepare()
    settle(store, thoroughly=True)
    path = store.url(catalog.NAME)
    click.echo(json.dumps({"catalog": path}) if as_json else f"wrote {path}")


@cli.command(name="coverage", epilog="Example: chatexport coverage --lake ./lake")
@_lake
@_as_json
def show_coverage(*, lake: str, as_json: bool) -> None:
    """Which channel is covered when."""
    spans = query.coverage(LakeStore(lake))
    if as_json:
        click.echo(json.dumps({"coverage": spans}))
        return
    print_table(["channel", "since", "until", "loads", "messages"], [list(span.values()) for span in spans])


@cli.command(name="verify", epilog="Example: chatexport verify --lake ./lake")
@_lake
@_as_json
def verify_lake(*, lake: str, as_json: bool) -> None:
    """Is anything missing, altered or unaccounted for? Ends with 1 if so."""
    verdict = verify(LakeStore(lake), now=datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(verdict.to_json()))
    else:
        if verdict.findings:
            print_table(["", "kind", "what"], [["!" if f.is_fault else "", f.kind, f.what] for f in verdict.findings])
        click.echo(
            f"{verdict.n_loads} loads, {verdict.n_files} files: "
            + ("all is as recorded, without a gap" if verdict.ok else "not all is well")
        )
    if not verdict.ok:
        sys.exit(EXIT_FAILED)


@cli.command(name="compact", epilog="Example: chatexport compact --lake ./lake")
@_lake
@_as_json
def compact_lake(*, lake: str, as_json: bool) -> None:
    """Fewer, larger files, without the rows that newer exports hide."""
    with TerminalProgress() as progress:
        done = compact(LakeStore(lake), progress=progress.stage)
    if as_json:
        click.echo(json.dumps(done.to_json()))
    elif done.record_id is None:
        click.echo("nothing to do: every day of every table is one file, and no row of it is hidden")
    else:
        click.echo(
            f"{done.files_before} files of {done.days} days became {done.files_after}: {done.rows} rows, "
            f"{done.rows_hidden} hidden ones left out, {done.seconds:.1f} s"
        )


@cli.command(name="vacuum", epilog="Example: chatexport vacuum --lake ./lake --keep 7d")
@_lake
@click.option("--keep", type=_Duration(), default="1d", show_default=True, help="Keep what died since: 0s, 36h, 7d.")
@click.option("--history", is_flag=True, help="Also what --keep-superseded kept for messages_history.")
@_as_json
def vacuum_lake(*, lake: str, keep: timedelta, history: bool, as_json: bool) -> None:
    """Deletes files that no query needs any more, and what broken-off work left behind."""
    swept = vacuum(LakeStore(lake), keep=keep, now=datetime.now(UTC), history=history)
    if as_json:
        click.echo(json.dumps(swept.to_json()))
    else:
        click.echo(
            f"deleted {len(swept.superseded)} superseded files, {len(swept.unknown)} files of no record, "
            f"{swept.n_leftovers} leftovers of broken-off work"
        )


@cli.command(name="forget-user", epilog="Example: chatexport forget-user ann-17 --lake ./lake")
@click.argument("user_id", metavar="ID")
@_lake
@click.option("--keep-messages", is_flag=True, help="Keep what they sent as rows, without author and text.")
@_as_json
def forget(*, user_id: str, lake: str, keep_messages: bool, as_json: bool) -> None:
    """Removes a person from every file of the lake, keeps them out, and prints a receipt."""
    store = LakeStore(lake)
    if not store.exists(catalog.NAME):
        raise LakeError(f"there is no lake at {store.uri}; give the address of one")
    with TerminalProgress() as progress:
        receipt = forget_user(
            store, user_id, now=datetime.now(UTC), keep_messages=keep_messages, progress=progress.stage
        )
    if as_json:
        click.echo(json.dumps(receipt.to_json()))
        return
    tables = sorted(receipt.removed.keys() | receipt.blanked.keys())
    if tables:
        print_table(
            ["table", "rows removed", "rows blanked"],
            [[name, receipt.removed[name], receipt.blanked[name]] for name in tables],
        )
        click.echo(f"{len(receipt.files)} files were written anew; {receipt.seconds:.1f} s")
    else:
        click.echo("the lake has nothing of them")
    click.echo("they are on the lake's list, and stay out whatever is loaded")


@cli.command(name="sql", epilog='Example: chatexport sql "SELECT cid, count(*) FROM messages GROUP BY 1" --lake ./lake')
@click.argument("statement", metavar="QUERY")
@_lake
@_as_json
def run_sql(*, statement: str, lake: str, as_json: bool) -> None:
    """A query over the catalog's views."""
    columns, rows = query.run(LakeStore(lake), statement)
    if as_json:
        click.echo(json.dumps({"columns": columns, "rows": rows}, default=str))
    else:
        print_table(columns, rows)


def _print_report(report: LoadReport, lake: str, *, as_json: bool) -> None:
    value = report.to_json()
    if as_json:
        click.echo(json.dumps(value))
        return
    if report.already_loaded:
        click.echo(f"load {value['load_id']} is in the lake already; nothing was written")
    print_table(["table", "rows"], [[name, count] for name, count in value["rows"].items() if count])
    click.echo(
        f"load {value['load_id']}: {value['lines']} lines, {value['rejected']} rejected, "
        f"{value['out_of_window']} out of window, {value['duplicates']} duplicates, "
        f"{value['other_entities']} other entities; {len(value['files'])} files, {value['seconds']:.1f} s"
    )
    if not_cast := value.get("not_cast"):
        told = ", ".join(f"{key} ({count})" for key, count in not_cast.items())
        click.echo(f"values of another kind than their column's, kept in custom: {told}")
    click.echo(f"query it: duckdb {LakeStore(lake).url(catalog.NAME)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    if not sys.warnoptions:
        # Warnings of libraries, such as of a short API secret, are for developers; errors have sentences of their own.
        warnings.simplefilter("ignore")
    try:
        cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read our output has gone; closing stdout again at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except ChatExportError as error:
        click.echo(f"chatexport: {error.message}", err=True)
        sys.exit(EXIT_WRONG_CALL if isinstance(error, CallError) else EXIT_FAILED)
    except Exception as error:  # the last line of defence: a traceback helps nobody who did not write the code
        if os.environ.get("CHATEXPORT_DEBUG"):
            raise
        click.echo(
            f"chatexport: an error inside chatexport ({type(error).__name__}); run again with CHATEXPORT_DEBUG=1 and "
            "report what it prints",
            err=True,
        )
        sys.exit(EXIT_FAILED)
