"""Coverage of loads: files of several ages in one load, and rows that no coverage entry of their export contains."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from export_objects import CID, channel, line, message, reaction, user, write_lines
from lakes import LakeProbe

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.storage.address import open_store

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def moment(day: int, hour: int = 0, minute: int = 0) -> str:
    return f"2026-01-{day:02}T{hour:02}:{minute:02}:00Z"


def said(message_id: str, day: int, hour: int = 0, minute: int = 0, **others: Any) -> bytes:
    return line("message", message(message_id, created_at=moment(day, hour, minute), **others))


class Loads:
    """Loads of files. Each file has the time of its export: a day of February, or a moment."""

    def __init__(self, lake: LakeProbe, folder: Path) -> None:
        self.lake = lake
        self._folder = folder
        self._n_files = 0

    def add(self, *files: tuple[list[bytes], int | str], window: tuple[str, str] | None = None) -> None:
        paths = []
        for lines, exported in files:
            self._n_files += 1
            path = write_lines(self._folder / f"export-{self._n_files}", lines)
            at = (
                datetime(2026, 2, exported, tzinfo=UTC)
                if isinstance(exported, int)
                else datetime.fromisoformat(exported)
            )
            os.utime(path, (at.timestamp(), at.timestamp()))
            paths.append(path)
        load_files(
            paths,
            lake_uri=self.lake.uri,
            window=Window.parse(*window) if window else None,
            options=LoadOptions(accept_shrink=True),
        )

    def shown(self, query: str) -> list[list[Any]]:
        """Return what the views show, and check that compaction does not change it, and that globs show the same."""
        rows = self.lake.rows(query)
        compact(open_store(self.lake.uri))
        assert rows == self.lake.rows(query)
        self.lake.assert_glob_equals_view()
        findings = verify(open_store(self.lake.uri), now=NOW).findings
        assert [] == [each for each in findings if each.kind != "gap"]
        return rows


@pytest.fixture
def loads(lake: LakeProbe, tmp_path: Path) -> Loads:
    return Loads(lake, tmp_path)


TEXTS = "SELECT id, text FROM messages ORDER BY ALL"
REACTIONS = "SELECT message_id, score, day(_exported_at) FROM reactions ORDER BY ALL"


def test_a_newer_export_hides_a_message_from_after_the_coverage_entry(loads: Loads) -> None:
    """The export of an open window may contain a message that is younger than its task."""
    open_window = [said("m1", 1, 10), said("m2", 1, 10, 31, text="old")]
    loads.add((open_window, moment(1, 10, 30)), window=(moment(1, 10), moment(1, 11)))
    newer = [said("m2", 1, 10, 31, text="edited"), said("m3", 1, 10, 50)]
    loads.add((newer, moment(1, 12)), window=(moment(1, 10, 30), moment(1, 11)))
    assert [["m1", "text of m1"], ["m2", "edited"], ["m3", "text of m3"]] == loads.shown(TEXTS)


def test_a_newer_file_hides_a_file_that_is_older_than_its_messages(loads: Loads) -> None:
    """A copied file may have any modification time. Such a file covers nothing."""
    lines = [said("m1", 1), said("m2", 1, 12)]
    loads.add((lines, "2025-12-01T00:00:00Z"))
    loads.add((lines, 2))
    assert [["m1", "text of m1"], ["m2", "text of m2"]] == loads.shown(TEXTS)


@pytest.mark.parametrize("with_an_older_load", [False, True])
def test_a_newer_export_hides_an_uncovered_reaction_whatever_else_is_in_the_lake(
    with_an_older_load: bool, loads: Loads
) -> None:
    if with_an_older_load:
        loads.add(([said("m0", 1), said("m1", 1, 10)], "2026-01-30T00:00:00Z"))
    loads.add(([said("m9", 20), line("reaction", reaction("m1", cid=CID, created_at=moment(1, 11)))], 1))
    loads.add(([said("m1", 1, 10)], 2), window=(moment(1), moment(2)))
    assert [] == loads.shown(REACTIONS)


def test_an_uncovered_reaction_is_not_shown_twice(loads: Loads) -> None:
    old = {"cid": CID, "created_at": moment(7, 11), "updated_at": moment(7, 11)}
    loads.add(([said("m1", 1), line("reaction", reaction("m0", score=1, **old))], 1))
    newer = [line("channel", channel()), line("reaction", reaction("m0", score=5, **old))]
    loads.add((newer, 2), window=(moment(6), moment(8)))
    assert [["m0", 5, 2]] == loads.shown(REACTIONS)


@pytest.mark.parametrize("at_once", [False, True])
def test_files_of_one_load_hide_each_other_as_separate_loads_do(at_once: bool, loads: Loads) -> None:
    """The user took a reaction back if the newer of two files does not have it."""
    messages = [said("m1", 1), said("m2", 1, 12)]
    files = [([*messages, line("reaction", reaction("m1"))], 2), (messages, 3)]
    for together in [files] if at_once else [[file] for file in files]:
        loads.add(*together)
    assert [] == loads.shown(REACTIONS)


def test_a_newer_file_of_a_load_outlives_an_older_one(loads: Loads) -> None:
    day = (moment(1), moment(2))
    loads.add(([said("m1", 1)], 1), ([line("reaction", reaction("m1"))], 3), window=day)
    loads.add(([said("m1", 1)], 2), window=day)
    assert [["m1", 1, 3]] == loads.shown(REACTIONS)


def test_a_file_covers_up_to_a_message_that_another_file_has_in_a_newer_version(loads: Loads) -> None:
    """A message from before that one is deleted if neither file has it."""
    loads.add(([said("m8", 8), said("m9", 9, 12)], 1))
    loads.add(([said("m1", 1), said("m8", 8), said("m10", 10)], 2), ([said("m10", 10), said("m11", 11)], 3))
    assert [["m1"], ["m10"], ["m11"], ["m8"]] == [[row[0]] for row in loads.shown(TEXTS)]


def test_rejects_of_a_user_export_outlive_a_newer_export_of_channels(loads: Loads) -> None:
    """A newer export of a channel says nothing about what users did elsewhere."""
    of_users = [line("user", user("u1")), said("m1", 1), line("call", {"id": "c1"}), b'{"cut off']
    loads.add(([said("m1", 1)], 1), (of_users, 1))
    loads.add(([said("m1", 1)], 2))
    vacuum(open_store(loads.lake.uri), keep=timedelta(0), now=NOW + timedelta(days=30))
    assert [[1, 1]] == loads.shown("SELECT (SELECT count(*) FROM other_entities), (SELECT count(*) FROM rejects)")


def test_compaction_removes_what_a_newer_export_of_a_user_does_not_have(loads: Loads) -> None:
    """The newer export may have no row in that table at all."""
    loads.add(([line("user", user("u1")), said("m1", 1)], 1))
    loads.add(([line("user", user("u1")), line("reaction", reaction("m9", "u1"))], 2))
    assert [] == loads.shown("SELECT id FROM user_export_messages")
