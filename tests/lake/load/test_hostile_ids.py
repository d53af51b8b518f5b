"""Ids that look like paths: who may name a channel or a user must not choose where the lake writes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from export_objects import channel, line, member, message, reaction, user, write_lines
from lakes import LakeProbe

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOSTILE = (
    "../../../outside",
    "/outside",
    "..\\outside",
    "a\x00b",
    "x" * 300,
    "..",
    "*?[a-z]{b,c}",
    "'; DROP TABLE messages; --\"",
    "%2e%2e%2foutside",
)


def test_no_id_leads_out_of_the_lake(tmp_path: Path) -> None:
    """Loaded, compacted and removed again: every row is there, and every file is below the lake."""
    folder = tmp_path / "in" / "lake"
    lake = LakeProbe(str(folder))
    channels = write_lines(tmp_path / "channels.ndjson", [each for hostile in HOSTILE for each in about(hostile)])
    user_lines = [line("user", user(hostile)) for hostile in HOSTILE]
    users = write_lines(tmp_path / "users.ndjson", user_lines)
    before = outside(tmp_path, folder)
    for path, window, kind in (
        (channels, Window.parse("2026-01-01", "2026-01-02"), ExportKind.CHANNELS),
        (users, None, ExportKind.USERS),
    ):
        report = load_files([path], lake_uri=lake.uri, window=window, exported_at=NOW, kind=kind)
        assert 0 == report.record.counts["rejected"]
    rows = lake.rows("SELECT cid, user_id, id FROM messages")
    assert sorted([f"messaging:{hostile}", hostile, hostile] for hostile in HOSTILE) == sorted(rows)
    assert sorted(HOSTILE) == sorted(
        user_id for (user_id,) in lake.rows("SELECT export_user_id FROM user_export_users")
    )
    store = open_store(folder)
    compact(store)
    forget_user(store, HOSTILE[0], now=NOW)
    assert [[len(HOSTILE) - 1]] == lake.rows("SELECT count(*) FROM messages")
    assert verify(store, now=NOW).ok
    assert before == outside(tmp_path, folder)


def about(hostile: str) -> list[bytes]:
    """A channel, a person, what they say and what they attach, all of one name."""
    cid = f"messaging:{hostile}"
    attached = [{"type": hostile, "title": hostile}]
    return [
        line("channel", channel(cid)),
        line("user", user(hostile)),
        line("member", member(hostile, cid=cid)),
        line("message", message(hostile, cid=cid, user={"id": hostile}, attachments=attached)),
        line("reaction", reaction(hostile, hostile, hostile)),
    ]


def outside(root: Path, lake: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file() and lake not in path.parents}
