"""Lakes as years of loads leave them, made in seconds or minutes.

How they are made
-----------------
One real load is made from an export. The others are copies of its record, each with a window of its own, as a schedule
has them, in which the loads of a window share the channels. After each of them, the package decides whether to compact
and what (``portion_behind``, ``merges_of``, ``rewrite_of``, ``record_of``): so the records and the files that they list
are those that the loads would have left. Only the files that are live at the end are written, by the package's writer.
The others are dead, and vacuum would have deleted them long ago. Their sizes are estimates.

What is simpler than in life: no two loads overlap, and each has the same number of messages.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.record import DataFile, LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.auto_compact import (
    LEAST_RECORDS,
    MOST_RECORDS,
    live_files,
    merges_of,
    portion_behind,
    rewrite_of,
)
from airflow_provider_chatexport.lake.maintenance.merge import Merge, Merged
from airflow_provider_chatexport.lake.maintenance.rewrite import record_of
from airflow_provider_chatexport.lake.parquet import write_table
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, TABLE_BY_NAME
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

START: Final = datetime(2023, 1, 1, tzinfo=UTC)
N_MESSAGES: Final = 200  # of each load
HOUR: Final = timedelta(hours=1)
# So many records are in no checkpoint yet: half of those after which a refresh writes one.
N_RECENT: Final = 25
# How much of the size of small files is left when they are merged.
_MERGED_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """How a lake came to be.

    :param n_channels: of each load.
    :param n_groups: how many loads there are for each window, each with channels of its own.
    :param is_merged: loads compact behind themselves, which is the default of ``chatexport load``.
    """

    name: str
    n_loads: int
    n_channels: int = 1
    n_groups: int = 1
    step: timedelta = HOUR
    is_merged: bool = True

    def window(self, number: int) -> Window:
        """Return the window of a load."""
        since = START + self.step * (number // self.n_groups)
        return Window(since=since, until=since + self.step)

    def channels(self, number: int) -> list[str]:
        """Return the channels of a load."""
        first = (number % self.n_groups) * self.n_channels
        return [f"messaging:channel-{each:06d}" for each in range(first, first + self.n_channels)]

    def exported_at(self, number: int) -> datetime:
        """Return when the service made the export of a load."""
        return self.window(number).until + timedelta(minutes=5, seconds=number % self.n_groups)


def export_file(path: Path, window: Window, channels: Sequence[str], n_messages: int = N_MESSAGES) -> Path:
    """Write an export of some channels, with a message every few seconds, and return its path."""
    lines: list[dict[str, Any]] = []
    for cid in channels:
        kind, _, name = cid.partition(":")
        lines.append({"type": "channel", "data": {"cid": cid, "type": kind, "id": name, "config": {}}})
    since = window.since
    assert since is not None
    for number in range(n_messages):
        at = (since + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = {
            "id": f"{since:%y%m%d%H}-{number}",
            "cid": channels[number % len(channels)],
            "text": f"words of {number}",
            "user": {"id": f"u{number % 7}"},
            "created_at": at,
            "updated_at": at,
        }
        lines.append({"type": "message", "data": message})
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return path


def make_lake(folder: Path, age: Age) -> LakeStore:
    """Make a lake of some age."""
    first = export_file(folder / "first.ndjson", age.window(0), age.channels(0))
    template = load_files(
        [first],
        lake_uri=str(folder / "template"),
        window=age.window(0),
        exported_at=age.exported_at(0),
    ).record
    life = _Life(age, template)
    for number in range(age.n_loads):
        life.load(number)
    store = open_store(folder / "lake")
    store.prepare()
    life.commit(store, open_store(folder / "template"), folder / "files")
    return store


class _Life:
    """The records of a lake, made as loads and compactions would have made them.

    :ivar records: all of them, in the order of their commits.
    """

    def __init__(self, age: Age, template: LoadRecord) -> None:
        self._age = age
        self._template = template
        self._n_rewrites = 0
        self._current: list[LoadRecord] = []
        self.records: list[LoadRecord] = []
        # By path, the numbers of the loads whose rows a file has.
        self._loads_in: dict[str, list[int]] = {}
        self._sets = [ChannelSet.of(age.channels(group)) for group in range(age.n_groups)]

    def load(self, number: int) -> None:
        """Add the record of a load, and that of the compaction after it if there is one."""
        record = self._copy(number)
        self._add(record)
        if self._age.is_merged:
            self._compact_behind(record)

    def _add(self, record: LoadRecord) -> None:
        gone = set(record.replaces)
        self._current = [*(each for each in self._current if each.load_id not in gone), record]
        self.records.append(record)

    def _copy(self, number: int) -> LoadRecord:
        """Return the record of a load with the window and the channels of its turn."""
        age, window = self._age, self._age.window(number)
        load_id = commit_log.load_id_of([str(number)])
        exported_at = age.exported_at(number)
        assert window.since is not None
        entry = CoverageEntry(
            channels=self._sets[number % age.n_groups],
            since=window.since,
            until=window.until,
            exported_at=exported_at,
            load_id=load_id,
        )
        files = tuple(self._moved(file, load_id, number) for file in self._template.files if self._is_kept(file))
        (source,) = self._template.sources
        return replace(
            self._template,
            load_id=load_id,
            exported_at=exported_at,
            committed_at=exported_at + timedelta(minutes=1),
            since=window.since,
            until=window.until,
            sources=(replace(source, sha256=f"{number:064x}", task_id=f"{number:036x}"),),
            coverage=(entry,),
            files=files,
        )

    def _is_kept(self, file: DataFile) -> bool:
        # Files that nothing merges are those of messages only: three times as many would say nothing else.
        return self._age.is_merged or file.table == MESSAGES.name

    def _moved(self, file: DataFile, load_id: str, number: int) -> DataFile:
        table = TABLE_BY_NAME[file.table]
        moment = self._age.window(number).since if _is_event(table) else self._age.exported_at(number)
        day = f"{moment:%Y-%m-%d}"
        path = f"{table.folder_of(day)}/{load_id}-{number:08x}-{day}-0.parquet"
        self._loads_in[path] = [number]
        return replace(file, path=path, first_day=day, last_day=day, sha256=f"{number:064x}")

    def _compact_behind(self, load: LoadRecord) -> None:
        snapshot = Snapshot([*self._candidates(load), load])
        if portion := portion_behind(snapshot, load):
            live = live_files(snapshot, portion)
            merges = merges_of(snapshot, live)
            before = [file for merge in merges for file in merge.data_files]
            self._n_rewrites += 1
            merged = Merged(files={}, rewritten={})
            for number, merge in enumerate(merges):
                file = self._merged(merge, number)
                merged.files[file] = Path()
                if merge.table is MESSAGES:
                    merged.rewritten |= {each.path: [file.path] for each in merge.data_files}
            record = record_of(snapshot, rewrite_of(portion, live, before, merged), seconds=0.3)
            self._add(
                replace(record, load_id=f"rewrite-{self._n_rewrites:06d}", committed_at=load.committed_at + HOUR / 60)
            )

    def _candidates(self, load: LoadRecord) -> list[LoadRecord]:
        """Return the records that ``portion_behind`` can choose from: it looks at no others, since no two overlap."""
        days = {file.first_day for file in load.files if _is_event(TABLE_BY_NAME[file.table])}
        behind = [
            record
            for record in self._current
            if not any(file.has_any(days) for file in record.files if _is_event(TABLE_BY_NAME[file.table]))
        ]
        behind = sorted(behind, key=lambda each: (each.n_loads, each.exported_at, each.load_id))[:MOST_RECORDS]
        n_loads = [record.n_loads for record in behind]
        fitting = (n for n in range(len(behind), LEAST_RECORDS - 1, -1) if 3 * n_loads[n - 1] <= 2 * sum(n_loads[:n]))
        return behind[: next(fitting, 0)]

    def _merged(self, merge: Merge, number: int) -> DataFile:
        """Return what the record says of the file that some files become."""
        table, files = merge.table, merge.data_files
        first_day, last_day = min(file.first_day for file in files), max(file.last_day for file in files)
        folder = table.folder_of(first_day if _is_event(table) else last_day)
        path = f"{folder}/rewrite-{self._n_rewrites:06d}-{self._n_rewrites:08x}-{number}-{last_day}-0.parquet"
        self._loads_in[path] = [each for file in files for each in self._loads_in[file.path]]
        size = sum(file.size_bytes for file in files) if _is_event(table) else max(file.size_bytes for file in files)
        return replace(
            files[0],
            path=path,
            first_day=first_day,
            last_day=last_day,
            rows=sum(file.rows for file in files) if _is_event(table) else max(file.rows for file in files),
            size_bytes=math.ceil(size * (_MERGED_SHARE if len(files) > 1 and _is_event(table) else 1)),
        )

    def commit(self, store: LakeStore, template: LakeStore, folder: Path) -> None:
        """Write the files that are live, and commit all records."""
        live = list(Snapshot(self._current).readable_states)
        real: dict[str, tuple[DataFile, Path]] = {}
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            for table_name, files in _by_table(live).items():
                source = next(file for file in self._template.files if file.table == table_name)
                path = template.local_path(template.data_path(source.path))
                copies = _Copies(con=con, age=self._age, source=path)
                real |= self._write(copies, TABLE_BY_NAME[table_name], files, folder)
        rest = dict(real)
        records = []
        for record in self.records:
            files = tuple(real[file.path][0] if file.path in real else file for file in record.files)
            local = {rest[file.path][0].path: rest.pop(file.path)[1] for file in record.files if file.path in rest}
            records.append(replace(record, files=files))
            assert commit_log.commit(store, records[-1], local)
        commit_log.write_checkpoint(store, records[:-N_RECENT])
        refresh(store, full=True)

    def _write(
        self, copies: _Copies, table: Table, files: Sequence[DataFile], folder: Path
    ) -> dict[str, tuple[DataFile, Path]]:
        """Write the files of a table, and return them by the paths that they have in the records."""
        if not self._age.is_merged:  # thousands, by one query
            numbers = [self._loads_in[file.path][0] for file in files]
            written = write_table(
                copies.of(numbers, of_each=True), table, folder, stem="load", metadata={}, max_file_rows=N_MESSAGES
            )
            return dict(zip((file.path for file in files), written, strict=True))
        found = {}
        for number, file in enumerate(files):
            written = write_table(
                copies.of(self._loads_in[file.path]),
                table,
                folder,
                stem=f"file-{number}",
                metadata={},
                by_month=True,
            )
            ((real, local),) = written
            found[file.path] = replace(real, first_day=file.first_day, last_day=file.last_day), local
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies:
    """The rows of the template's file, moved to the windows of other loads, as the package's writer reads them."""

    con: duckdb.DuckDBPyConnection
    age: Age
    source: Path
    numbers: Sequence[int] = ()
    of_each: bool = False

    def of(self, numbers: Iterable[int], *, of_each: bool = False) -> _Copies:
        """Return the rows of these loads.

        :param of_each: in batches of one load.
        """
        return replace(self, numbers=sorted(numbers), of_each=of_each)

    def days(self, table: Table) -> dict[str, int]:
        """Return the number of rows of each day."""
        days: dict[str, int] = defaultdict(int)
        for number in self.numbers:
            moment = self.age.window(number).since if _is_event(table) else self.age.exported_at(self.numbers[-1])
            days[f"{moment:%Y-%m-%d}"] += N_MESSAGES
        return dict(sorted(days.items()))

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows, sorted as the writer wants them."""
        age, names = self.age, {column.name for column in table}
        windows = [age.window(number).since - START for number in self.numbers]  # type: ignore[operator]
        loads = pa.table(
            {
                "number": self.numbers,
                "shift": pa.array(windows, pa.duration("us")),
                "first": [(number % age.n_groups) * age.n_channels for number in self.numbers],
                "load_id": [commit_log.load_id_of([str(number)]) for number in self.numbers],
                "exported": pa.array(map(age.exported_at, self.numbers), pa.timestamp("us", "UTC")),
            }
        )
        channel = "printf('channel-%06d', first + right(rows.cid, 6)::INTEGER)"
        own = {
            "cid": f"'messaging:' || {channel}",
            "_load_id": "load_id",
            "_exported_at": "exported",
        }
        if _is_event(table):
            own |= {"id": "number || '-' || rows.id", "channel_id": channel}
            own |= {name: f"rows.{name} + shift" for name in ("created_at", "updated_at")}
        elif "cid" in names:
            own["id"] = channel
        columns = ", ".join(
            f"({own.get(column.name, f'rows.{sql.name(column.name)}')})"
            f"{'::VARCHAR' if column.kind is Kind.JSON else ''} AS {sql.name(column.name)}"
            for column in table
        )
        day = "(rows.created_at + shift)::DATE" if _is_event(table) else "max(exported) OVER ()::DATE"
        # A snapshot table keeps the newest row of each key.
        key = ", ".join(map(sql.name, table.key))
        newest = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY exported DESC) = 1"
        order = "number, created_at" if self.of_each else ", ".join(map(sql.name, table.sort))
        self.con.register("loads", loads)
        query = f"""
            SELECT * EXCLUDE (number, exported) FROM (
                SELECT {day} AS _day, {columns}, number, exported
                FROM read_parquet('{self.source}', hive_partitioning = false) rows CROSS JOIN loads
                {"" if _is_event(table) else newest}
            ) ORDER BY _day, {order}
        """
        if self.of_each:
            yield from self.con.sql(query).to_arrow_table().combine_chunks().to_batches(max_chunksize=N_MESSAGES)
        else:
            yield from self.con.sql(query).to_arrow_reader(batch_rows)


def _is_event(table: Table) -> bool:
    return table.placement is Placement.EVENT


def _by_table(states: Iterable[FileState]) -> dict[str, list[DataFile]]:
    grouped: dict[str, list[DataFile]] = defaultdict(list)
    for each in states:
        grouped[each.file.table].append(each.file)
    return grouped
