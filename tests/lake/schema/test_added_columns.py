"""Columns that a newer version of the schema adds, in a lake that an older version wrote."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_objects import Fields, channel, line, member, message, user, write_lines
from lakes import LakeProbe, load_file

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION, TABLE_BY_NAME, TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, Placement
from airflow_provider_chatexport.lake.storage.address import open_store

TABLE_KINDS = {table.name: {column.name: column.kind for column in table} for table in TABLES}
NOW = datetime(2026, 2, 1, tzinfo=UTC)


def write(path: Path, *objects: tuple[str, Fields]) -> Path:
    return write_lines(path, [line("channel", channel("a:1")), *(line(name, fields) for name, fields in objects)])


def age(lake: LakeProbe) -> None:
    """Make a lake what version 1 of the schema wrote.

    Files have no newer column, those of event tables lie in the folder of their day, JSON has Arrow's type for it, and
    records name no version.
    """
    root, store = Path(lake.uri), open_store(lake.uri)
    for path in (root / "_loads").glob("*.json"):
        record = json.loads(path.read_bytes())
        record |= {"schema_version": 1, "v": 1}
        for file in record["files"]:
            table = TABLE_BY_NAME[file["table"]]
            new = [column.name for column in table if column.added_in > 1]
            new += [table.date_column] * (table.placement is Placement.EVENT)
            old = [root / file["path"], root / store.data_path(file["path"])]
            rows = pq.read_table(pa.BufferReader(old[0].read_bytes())).drop_columns(new)
            for at, column in enumerate(rows.schema):
                if TABLE_KINDS[table.name].get(column.name) is Kind.JSON:
                    rows = rows.set_column(at, column.name, rows[column.name].cast(pa.json_()))
            day = file.pop("first_day")
            assert (day, SCHEMA_VERSION) == (file.pop("last_day"), file.pop("schema_version"))
            del file["bounds"]
            file |= {"day": day, "path": f"{table.name}/{table.date_column}={day}/{old[0].name}"}
            link, data = root / file["path"], root / store.data_path(file["path"])
            for each in old:
                each.unlink()
            for each in (link, data):
                each.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, data)
            link.hardlink_to(data)
            file.update(sha256=hashlib.sha256(data.read_bytes()).hexdigest(), size_bytes=data.stat().st_size)
        path.write_text(json.dumps(record), encoding="utf-8")
    (root / "_loads" / "_checkpoint.gz").unlink(missing_ok=True)


@pytest.fixture
def old_lake(lake: LakeProbe, tmp_path: Path) -> LakeProbe:
    messages = [message(f"old{n}", cid="a:1", created_at=f"2026-01-01T0{n}:30:00Z", reply_count=n) for n in (1, 2)]
    objects = [("message", each) for each in messages] + [("member", member("u1", cid="a:1")), ("user", user("u1"))]
    load_file(lake, write(tmp_path / "old", *objects), 0, 12, "2026-01-02T00:00:00Z")
    users = write_lines(tmp_path / "users", [line("user", user("u1")), line("message", message("mine", cid="a:1"))])
    Lake(lake.uri).load(users, exported_at="2026-01-02T00:00:00Z", kind=ExportKind.USERS)
    age(lake)
    return lake


def test_an_old_lake_is_read_as_before(old_lake: LakeProbe) -> None:
    """The new columns are null there, with their types and descriptions."""
    Lake(old_lake.uri).rebuild_catalog()
    assert [["old1", 1, None], ["old2", 2, None]] == old_lake.rows(
        "SELECT id, reply_count, replies_missing FROM messages ORDER BY id"
    )
    assert [[0, 0]] == old_lake.rows("SELECT count(*) - 2, count_if(typeof(custom) <> 'JSON') FROM messages")
    assert [["mine", None]] == old_lake.rows("SELECT id, status FROM user_export_messages")
    for table in TABLES:
        types = dict(old_lake.rows(f"SELECT column_name, column_type FROM (DESCRIBE {table.name})"))
        assert {column.name: column.kind.value for column in table}.items() <= types.items()
    assert [[2, 2]] == old_lake.rows("SELECT count(*), count(valid_from) FROM messages_history")


@pytest.mark.parametrize("compacted", [False, True])
def test_old_and_new_files_are_one_table(old_lake: LakeProbe, tmp_path: Path, compacted: bool) -> None:
    """Half of the first file is hidden by the new load, and the rest stays visible, compacted or not."""
    objects = [
        ("message", message("old2", cid="a:1", created_at="2026-01-01T02:30:00Z", reply_count=1, status="received")),
        ("member", member("u2", cid="a:1", hide_channel=True)),
    ]
    load_file(old_lake, write(tmp_path / "new", *objects), 2, 12, "2026-01-03T00:00:00Z")
    lake = Lake(old_lake.uri)
    if compacted:
        assert lake.compact().merges > 0
        files = [file for record in old_lake.records() for file in record["files"] if record["replaces"]]
        assert {SCHEMA_VERSION} == {file["schema_version"] for file in files if file["table"] == "messages"}
    assert [["old1", 1, None, None], ["old2", 1, 1, "received"]] == old_lake.rows(
        "SELECT id, reply_count, replies_missing, status FROM messages ORDER BY id"
    )
    assert [["u1", None], ["u2", True]] == old_lake.rows("SELECT user_id, hide_channel FROM members ORDER BY user_id")
    assert [] == [each for each in lake.verify().findings if each.is_fault]


def test_the_same_file_again_is_the_same_load(old_lake: LakeProbe, tmp_path: Path) -> None:
    """A task that is tried again after an upgrade must not load its exports a second time."""
    n_records = len(old_lake.records())
    report = load_file(old_lake, tmp_path / "old", 0, 12, "2026-01-02T00:00:00Z")
    assert (True, n_records) == (report.already_loaded, len(old_lake.records()))


def test_a_person_is_removed_from_old_files(old_lake: LakeProbe) -> None:
    """The files that take their place have all columns."""
    forget_user(open_store(old_lake.uri), "u1", now=NOW)
    assert 0 == old_lake.value("SELECT count(*) FROM messages")
    assert 0 == old_lake.value("SELECT count(*) FROM members")


def test_a_glob_reads_old_and_new_files_by_name(old_lake: LakeProbe, tmp_path: Path) -> None:
    """As ``docs/tables.md`` says for people who read the files themselves."""
    objects = [("message", message("new", cid="a:1", created_at="2026-01-05T02:30:00Z", status="received"))]
    load_file(old_lake, write(tmp_path / "new", *objects), None, None, "2026-01-06T00:00:00Z")
    glob = f"read_parquet('{old_lake.uri}/messages/*/*.parquet', union_by_name = true)"
    assert [("new", "received"), ("old1", None), ("old2", None)] == (
        duckdb.sql(f"SELECT id, status FROM {glob} ORDER BY id").fetchall()
    )
