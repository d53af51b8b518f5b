"""The layout of Parquet files, read back as any reader of Parquet reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_objects import input_file, line, message, reaction, write_lines
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.commits.record import DataFile
from airflow_provider_chatexport.lake.parquet import row_group_rows, write_empty, write_table
from airflow_provider_chatexport.lake.schema.arrow import arrow_schema
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, SCHEMA_VERSION, TABLES
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging.conversion import Conversion

N_MESSAGES = 70_000
METADATA = {"chatexport.load_id": "load-1", "chatexport.window": "None"}


class Rows:
    """Rows of some days as a conversion gives them: sorted by day, in batches that end anywhere."""

    def __init__(self, days: dict[str, int]) -> None:
        self._days = days

    def days(self, table: Table) -> dict[str, int]:
        return self._days

    def rows(self, table: Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        whole = pa.Table.from_pylist(
            [
                {"_day": date.fromisoformat(day), **{column.name: None for column in table}, "id": f"{day}-{number:07}"}
                for day, n_rows in self._days.items()
                for number in range(n_rows)
            ],
            schema=pa.schema(
                [("_day", pa.date32()), *((field.name, field.type) for field in list(arrow_schema(table))[:-1])]
            ),
        )
        yield from whole.to_batches(max_chunksize=batch_rows)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[DataFile, Path]]:
    """A load of a large day and two small ones."""
    folder = tmp_path_factory.mktemp("write")
    lines = (
        line(
            "message",
            message(
                f"m{(number * 7919) % N_MESSAGES:06}",
                cid=f"a:{number % 7}",
                created_at=f"2026-01-0{1 if number % 100 else 2 + number % 2}T{number % 24:02}:00:00Z",
                own={"number": number},
            ),
        )
        for number in range(N_MESSAGES)
    )
    path = write_lines(folder / "export", [*lines, line("reaction", reaction("m000001"))])
    with Conversion(folder / "work", load_id="load-1") as conversion:
        conversion.add(input_file(path))
        conversion.finish()
        return [
            each
            for table in TABLES
            for each in write_table(conversion, table, folder / "files", stem="load-1-x", metadata=METADATA)
        ]


def of(written: list[tuple[DataFile, Path]], table: str) -> list[tuple[DataFile, Path]]:
    return [(file, path) for file, path in written if file.table == table]


def test_a_load_of_some_days_has_a_file_per_table_and_day(written: list[tuple[DataFile, Path]]) -> None:
    """The next load, which looks back, retires whole files. A table without rows has none."""
    assert [
        "messages/event_month=2026-01/load-1-x-2026-01-01-0.parquet",
        "messages/event_month=2026-01/load-1-x-2026-01-02-0.parquet",
        "reactions/event_month=2026-01/load-1-x-2026-01-",
        "users/export_date=2026-01-03/load-1-x-2026-01-03-0.parquet",
    ] == [file.path if file.table != "reactions" else file.path[:47] for file, _ in written]


def test_no_row_is_lost_on_the_way_into_files(written: list[tuple[DataFile, Path]]) -> None:
    """Every message is in the file of its day, exactly once."""
    found = pa.concat_tables([pq.read_table(path, columns=["id", "created_at"]) for _, path in of(written, "messages")])
    assert N_MESSAGES == len(set(found["id"].to_pylist())) == len(found)
    for file, path in of(written, "messages"):
        rows = pq.read_table(path)
        assert {file.first_day} == {str(moment.date()) for moment in rows["created_at"].to_pylist()}
        assert {file.last_day} == {str(day) for day in rows["event_date"].to_pylist()}
        assert file.rows == pq.read_metadata(path).num_rows


def test_rows_are_sorted_in_each_file_and_the_file_says_so(written: list[tuple[DataFile, Path]]) -> None:
    """Readers skip what the sort order rules out, and rely on the declared order."""
    for _, path in of(written, "messages"):
        rows = pq.read_table(path, columns=["cid", "created_at", "id"]).to_pylist()
        keys = [tuple(row.values()) for row in rows]
        assert sorted(keys) == keys
        names = pq.read_schema(path).names
        declared = pq.read_metadata(path).row_group(0).sorting_columns
        assert ["event_date", "cid", "created_at", "id"] == [names[column.column_index] for column in declared]


def test_row_groups_follow_the_rule(written: list[tuple[DataFile, Path]]) -> None:
    """In a single group, sorting rules out nothing. Groups that are too small slow down every scan."""
    (large, path), *_ = of(written, "messages")
    meta = pq.read_metadata(path)
    sizes = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
    assert row_group_rows(large.rows) == 30_000
    assert [30_000, 30_000, large.rows - 60_000] == sizes


@pytest.mark.parametrize(
    ("expected", "n_rows"), [(30_000, 1), (30_000, 120_000), (50_000, 200_000), (122_880, 500_000), (122_880, 10**8)]
)
def test_the_size_of_a_row_group(expected: int, n_rows: int) -> None:
    """A group is a quarter of the file, within the limits that are good for scans."""
    assert expected == row_group_rows(n_rows)


def test_ids_have_bloom_filters_that_find_and_rule_out(written: list[tuple[DataFile, Path]]) -> None:
    """A look-up of one message by id must not read every group of every file."""
    (_, path), *_ = of(written, "messages")
    (present,) = duckdb.sql(f"SELECT min(id) FROM '{path}'").fetchall()[0]
    probe = "SELECT count(*) FILTER (NOT bloom_filter_excludes) FROM parquet_bloom_probe(?, 'id', ?)"
    assert 1 <= duckdb.execute(probe, [str(path), present]).fetchall()[0][0]
    assert 0 == duckdb.execute(probe, [str(path), "not-an-id-of-this-file"]).fetchall()[0][0]
    offsets = (
        "SELECT path_in_schema FROM parquet_metadata(?) WHERE bloom_filter_offset IS NOT NULL AND row_group_id = 0"
    )
    assert {"id", "user_id", "parent_id", "cid"} == {
        name for (name,) in duckdb.execute(offsets, [str(path)]).fetchall()
    }


def test_json_is_plain_text_in_the_files(written: list[tuple[DataFile, Path]]) -> None:
    """Arrow's type for JSON would make pyiceberg and polars refuse the whole table; DuckDB's functions take text."""
    (_, path), *_ = of(written, "messages")
    assert pa.string() == pq.read_schema(path).field("custom").type
    assert ("VARCHAR", True) == duckdb.sql(
        f"SELECT typeof(custom), custom->>'/own' IS NOT NULL FROM '{path}'"
    ).fetchall()[0]


def test_files_say_where_they_come_from(written: list[tuple[DataFile, Path]]) -> None:
    """A file on its own must say which schema and load it belongs to."""
    for _, path in written:
        found = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}
        assert {"chatexport.schema_version": str(SCHEMA_VERSION), **METADATA}.items() <= found.items()


def test_an_empty_file_carries_the_columns_descriptions(tmp_path: Path) -> None:
    """Readers without a catalog find the descriptions in one file of each table."""
    write_empty(MESSAGES, tmp_path / "empty.parquet")
    fields = pq.read_schema(tmp_path / "empty.parquet")
    assert {**{column.name: column.doc for column in MESSAGES}, "event_date": MESSAGES.date_doc} == {
        field.name: (field.metadata or {})[b"description"].decode() for field in fields
    }


def test_columns_that_queries_wait_for_are_compressed_for_speed(written: list[tuple[DataFile, Path]]) -> None:
    """Regression: a query of a channel's history spent most of its time on decompressing ids, times and text."""
    (_, path), *_ = of(written, "messages")
    group = pq.read_metadata(path).row_group(0)
    codecs = {group.column(at).path_in_schema: group.column(at).compression for at in range(group.num_columns)}
    assert ("LZ4", "LZ4", "LZ4", "ZSTD") == tuple(codecs[name] for name in ("id", "created_at", "text", "custom"))
    assert codecs["mentioned_user_ids.list.element"] == "LZ4"


def test_digest_and_size_are_those_of_the_file(written: list[tuple[DataFile, Path]]) -> None:
    """Verify compares files with them."""
    for file, path in written:
        content = path.read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size_bytes)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_empty_file_has_the_schema_of_the_full_ones(table: Table, tmp_path: Path) -> None:
    """Readers of an empty lake must see the types of a full one."""
    write_empty(table, tmp_path / "empty.parquet")
    found = pq.read_schema(tmp_path / "empty.parquet")
    assert arrow_schema(table).names == found.names
    assert arrow_schema(table).types == found.types


@given(
    days=st.dictionaries(st.sampled_from(["2026-01-01", "2026-01-02", "2026-01-03"]), st.integers(1, 25), min_size=1)
)
def test_batches_that_end_anywhere_give_whole_days(days: dict[str, int], tmp_path_factory: Any) -> None:
    """A batch that ends inside a day, or a day that ends inside a batch, must not cut or mix files."""
    ordered = dict(sorted(days.items()))
    folder = tmp_path_factory.mktemp("days")
    write_as = write_table(Rows(ordered), MESSAGES, folder, stem="x", metadata={})  # type: ignore[arg-type]
    assert ordered == {file.first_day: pq.read_metadata(path).num_rows for file, path in write_as}


def test_a_day_too_large_for_one_file_goes_on_in_another(tmp_path: Path) -> None:
    """Files of many gigabytes are slow to copy, to check and to rewrite."""
    rows = Rows({"2026-01-01": 50_000, "2026-01-02": 10})
    written = list(write_table(rows, MESSAGES, tmp_path, stem="x", metadata={}, max_file_rows=20_000))  # type: ignore[arg-type]
    assert ["x-2026-01-01-0", "x-2026-01-01-1", "x-2026-01-01-2", "x-2026-01-02-0"] == [
        path.stem for _, path in written
    ]
    ids = [each for _, path in written for each in pq.read_table(path, columns=["id"])["id"].to_pylist()]
    assert 50_010 == len(set(ids)) == len(ids)


def test_a_long_history_has_a_file_per_month(tmp_path: Path) -> None:
    """Regression: a load of eight years wrote 2,800 files per table, and every query opened them all."""
    days = {f"2026-{month:02}-{day:02}": 40 for month in (1, 2) for day in range(1, 21)}
    (january, at_january), (february, _) = write_table(Rows(days), MESSAGES, tmp_path, stem="x", metadata={})  # type: ignore[arg-type]
    assert "messages/event_month=2026-01/x-2026-01-01-0.parquet" == january.path
    assert ("2026-01-01", "2026-01-20", 800) == (january.first_day, january.last_day, january.rows)
    assert ("2026-02-01", "2026-02-20", 800) == (february.first_day, february.last_day, february.rows)
    assert list(days)[:20] == sorted({str(day) for day in pq.read_table(at_january)["event_date"].to_pylist()})


def test_a_month_that_exceeds_the_target_size_is_cut_between_days(tmp_path: Path) -> None:
    """A day is in one file, and files stay of a size that is quick to copy and to rewrite."""
    days = {f"2026-01-{day:02}": 20_000 for day in range(1, 17)}
    files = [
        file
        for file, _ in write_table(Rows(days), MESSAGES, tmp_path, stem="x", metadata={}, target_bytes=100_000)  # type: ignore[arg-type]
    ]
    assert 1 < len(files) < 16
    assert list(days) == [day for file in files for day in days if file.first_day <= day <= file.last_day]
    assert 16 * 20_000 == sum(file.rows for file in files)


def test_a_file_has_its_bounds(written: list[tuple[DataFile, Path]]) -> None:
    """A reader of the records need not open a file to see that it contains nothing of a channel or a time."""
    (file, _), *_ = of(written, "messages")
    assert (
        ("cid", "a:0", "a:6"),
        ("created_at", "2026-01-01T00:00:00.000000Z", "2026-01-01T23:00:00.000000Z"),
    ) == file.bounds


def test_a_data_file_is_plain_json() -> None:
    """It is a part of the load's record. Those of version 1 have a day in place of a span."""
    day = "2026-01-01"
    promoted, bounds = (("number", "BIGINT"),), (("cid", "a:1", "a:2"),)
    file = DataFile(
        path="a",
        table="messages",
        first_day=day,
        last_day="2026-01-31",
        rows=1,
        size_bytes=2,
        sha256="c",
        promoted=promoted,
        bounds=bounds,
    )
    assert file == record_json.file_from_json(json.loads(json.dumps(record_json.file_to_json(file))))
    of_a_day = {"path": "a", "table": "messages", "day": day, "rows": 1, "size_bytes": 2, "sha256": "c"}
    assert replace(file, last_day=day, promoted=(), bounds=()) == record_json.file_from_json(of_a_day)
