"""A lake as its readers see it: through the catalog's views, and through a glob over its files."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from export_objects import Fields, channel, line, message, write_lines

from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.api.polling import ExportPoller, wait_for_exports
from airflow_provider_chatexport.api.settings import ServiceSettings
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.plan import ExportFlags, plan_channels
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.lake.schema.sql import quoted
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.object_store import PROOF
from airflow_provider_chatexport.sandbox import Sandbox

UBUNTU = "livestream:ubuntu"
_BESIDE_THE_DATA = (
    "catalog.duckdb",
    ".catalog.duckdb",
    "_files/",
    "_forgotten/",
    "_loads/_checkpoint",
    "_loads/_recent",
    PROOF,
)


# As ``duckdb lake/catalog.duckdb`` without ``-readonly`` does.
_OPEN_TO_WRITE = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class LakeProbe:
    """What tests ask of a lake. It keeps nothing open, so it sees whatever any process has committed."""

    uri: str

    @property
    def is_remote(self) -> bool:
        """Whether the lake lies on an object store."""
        return open_store(self.uri).is_remote

    def rows(self, statement: str) -> list[list[Any]]:
        """Return the rows of a query, as the command line prints them."""
        with Lake(self.uri) as lake:
            return lake.fetch(statement).rows

    def value(self, statement: str) -> Any:
        """Return the one value of a query."""
        ((value,),) = self.rows(statement)
        return value

    def texts(self) -> dict[str, str]:
        """Return what the view shows: text by message id."""
        return {message_id: text for message_id, text in self.rows("SELECT id, text FROM messages ORDER BY id")}  # noqa: C416

    def files(self) -> set[str]:
        """Return every file that a glob over the tables or records finds, empty files left out.

        On an object store, a glob over the tables finds nothing.
        """
        return {
            path
            for path, _ in open_store(self.uri).walk("", "")
            if not path.startswith(_BESIDE_THE_DATA) and "/empty-v" not in path
        }

    def data_files(self) -> set[str]:
        """Return the data files that there are, live or not, by the path that records give them."""
        return {path for path, _ in open_store(self.uri).data_files()}

    def snapshot(self) -> Snapshot:
        """Return what the records say, read one by one."""
        return commit_log.read_snapshot(open_store(self.uri), afresh=True)

    def records(self) -> list[dict[str, Any]]:
        """Return the records as JSON."""
        store = open_store(self.uri)
        return [json.loads(store.read(path)) for path in commit_log.record_paths(store)]

    def assert_tidy(self) -> None:
        """Check that a glob finds exactly the live files, that no data file is missing or unknown, and no leftovers."""
        snapshot = self.snapshot()
        records = {f"_loads/{record['load_id']}.json" for record in self.records()}
        live = {each.file.path for each in snapshot.file_states if each.is_live}
        shown = records if self.is_remote else live | records
        assert shown == self.files(), shown ^ self.files()
        readable = {each.file.path: each for each in snapshot.file_states if each.is_readable}
        assert readable == {each.file.path: each for each in snapshot.readable_states}
        assert live <= self.data_files() <= {each.file.path for each in snapshot.file_states}

    def assert_tidy_but_for_leftovers(self) -> None:
        """Check that a glob finds exactly the live files; what a killed process left is where no reader looks."""
        live = {each.file.path for each in self.snapshot().file_states if each.is_live}
        assert live == {path for path in self.files() if not path.startswith(("_staging/", "_loads/"))}

    def assert_glob_equals_view(self) -> None:
        """Check that a glob over the files has the rows that the views show; an object store has no such glob."""
        if self.is_remote:
            return
        for table in TABLES:
            pattern = quoted(f"{self.uri}/{table.name}/*/*.parquet")
            glob = f"read_parquet({pattern}, hive_partitioning = true)"
            names = ", ".join(f'"{column.name}"' for column in table)
            difference = self.rows(
                f"(SELECT {names} FROM {table.name} EXCEPT ALL SELECT {names} FROM {glob}) UNION ALL "
                f"(SELECT {names} FROM {glob} EXCEPT ALL SELECT {names} FROM {table.name})"
            )
            assert [] == difference, table.name


@contextlib.contextmanager
def shell_on(catalog: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has opened a catalog to write it, while the context lasts."""
    catalog.chmod(0o644)
    command = [sys.executable, "-c", _OPEN_TO_WRITE, str(catalog)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        assert "open\n" == shell.stdout.readline()
        yield shell


def at(hour: int, minute: int = 0, *, day: int = 1) -> str:
    return f"2026-01-{day:02}T{hour:02}:{minute:02}:00Z"


def write_export(
    path: Path, texts: dict[str, tuple[int, str]], cid: str = "a:1", *, day: int = 1, **others: Any
) -> Path:
    """Write an export file of one channel and one day. ``texts``: message id -> (hour, text)."""
    fields: list[tuple[str, Fields]] = [("channel", channel(cid))]
    for message_id, (hour, text) in texts.items():
        fields.append(("message", message(message_id, cid=cid, created_at=at(hour, 30, day=day), text=text, **others)))
    return write_lines(path, [line(name, each) for name, each in fields])


def load_file(
    lake: LakeProbe, path: Path, since: int | None, until: int | None, exported_at: str | datetime, **options: Any
) -> LoadReport:
    """Load one file. ``since`` and ``until`` are hours of the day; ``options`` those of ``LoadOptions``."""
    return Lake(lake.uri).load(
        path,
        since=None if since is None else at(since),
        until=None if until is None else at(until),
        exported_at=exported_at,
        options=LoadOptions(**options),
    )


def client_of(sandbox: Sandbox) -> ChatExportClient:
    return ChatExportClient(
        ServiceSettings(
            api_key=sandbox.api_key,
            api_secret=sandbox.api_secret,
            base_url=sandbox.url,
            first_wait_s=0.001,
            longest_wait_s=0.01,
        )
    )


def exports_of(
    client: ChatExportClient, since: str, until: str, *, channels: tuple[str, ...] = (UBUNTU,), **flags: Any
) -> list[Receipt]:
    """Export a window, wait for it, and return the receipts."""
    requests = plan_channels(channels, Window.parse(since, until), ExportFlags(**flags))
    receipts = [Receipt(task_id=client.submit_channels(request), request=request) for request in requests]
    task_ids = [receipt.task_id for receipt in receipts]
    wait_for_exports(client, ExportPoller(task_ids, started_epoch_s=0.0, deadline_epoch_s=1e12, poll_s=0.01))
    return receipts
