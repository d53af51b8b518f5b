"""``Lake``, the front door: every method, on a disk and in an object store."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from export_objects import channel, line, message, user, write_lines
from lakes import LakeProbe, at, write_export

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.errors import CallError, InputError, LakeError, WindowError
from airflow_provider_chatexport.lake import Lake, LoadOptions
from airflow_provider_chatexport.lake.load.report import LoadReport

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """A lake that does not exist yet."""
    with Lake(tmp_path / "lake") as lake:
        yield lake


@pytest.fixture
def loaded(lake: Lake, tmp_path: Path) -> Lake:
    """A lake to change: two channels over two days; the first with a gap, and with hours that were loaded twice."""
    return fill(lake, tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The same lake, for tests that only read it."""
    folder = tmp_path_factory.mktemp("shared")
    return fill(Lake(folder / "lake"), folder)


def fill(lake: Lake, folder: Path) -> Lake:
    for cid, since, until, exported_at in (
        ("a:1", "2026-01-01T08:00:00Z", "2026-01-01T12:00:00Z", NOON),
        ("a:1", "2026-01-01T10:00:00Z", "2026-01-01T12:00:00Z", NOON + timedelta(hours=1)),
        ("a:1", "2026-01-02T08:00:00Z", "2026-01-02T12:00:00Z", NOON),
        ("b:2", "2026-01-01T08:00:00Z", "2026-01-01T12:00:00Z", NOON),
    ):
        made_at = f"{since[:11]}10:30:00Z"
        lines = [
            line("channel", channel(cid)),
            line("message", message(f"{cid} {made_at}", cid=cid, created_at=made_at, user={"id": "ann-17"})),
        ]
        lake.load(write_lines(folder / "from", lines), since=since, until=until, exported_at=exported_at)
    return lake


def ids(relation: duckdb.DuckDBPyRelation) -> list[str]:
    return sorted(row[0] for row in relation.select("id").fetchall())


# The door


def test_a_leaf_of_the_lake_does_not_load_duckdb() -> None:
    """``Lake`` is imported when it is used: operators import leaves while Airflow parses DAGs, every few seconds."""
    code = (
        "import sys; import airflow_provider_chatexport.lake as lake; "
        "import airflow_provider_chatexport.lake.raw_json, airflow_provider_chatexport.lake.schema.sql; "
        "print('duckdb' in sys.modules, 'Lake' in dir(lake)); "
        "from airflow_provider_chatexport.lake import Lake; print('duckdb' in sys.modules, Lake.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "False True\nTrue Lake\n" == ran.stdout


def test_the_package_has_no_other_names() -> None:
    """A misspelled name is an error at the import, and not later."""
    with pytest.raises(ImportError, match="cannot import name 'Lakes'"):
        from airflow_provider_chatexport.lake import Lakes  # type: ignore[attr-defined]  # noqa: F401, PLC0415


def test_opening_a_lake_creates_nothing(tmp_path: Path) -> None:
    """A typo in an address must not become an empty lake."""
    with Lake(str(tmp_path / "typo")) as lake:
        assert not lake.exists()
        for ask in (
            lambda: lake.sql("FROM messages"),
            lambda: lake.table("messages"),
            lake.coverage,
            lake.coverage_runs,
            lambda: lake.gaps(until="2026-01-03"),
            lake.verify,
            lake.compact,
            lake.vacuum,
            lambda: lake.forget_user("ann-17"),
        ):
            with pytest.raises(LakeError, match="there is no lake at"):
                ask()
    assert [] == list(tmp_path.iterdir())


def test_a_lake_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lake = Lake("lake")
    assert (f"{tmp_path}/lake", f"{tmp_path}/lake/catalog.duckdb", True) == (lake.uri, lake.catalog, lake.is_local)
    assert f"Lake('{tmp_path}/lake')" == repr(lake)
    assert not Lake("memory://lake").is_local


@pytest.mark.parametrize("uri", ["", " ", "None"])
def test_an_empty_address_is_refused(uri: str) -> None:
    with pytest.raises(CallError, match="the lake's address is empty; give a folder"):
        Lake(uri)


def test_a_lake_can_be_created_empty_and_queried(lake: Lake) -> None:
    """Dashboards come before the first load."""
    lake.rebuild_catalog()
    assert lake.exists()
    assert [(0,)] == lake.sql("SELECT count(*) FROM messages").fetchall()
    assert () == lake.coverage().spans
    assert {} == lake.coverage_runs()
    assert {} == lake.gaps(until=NOON)


def test_work_happens_where_the_caller_says(tmp_path: Path) -> None:
    """Containers have a large disk at one path and a small one everywhere else."""
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    seen: set[str] = set()

    def look(*_: object) -> None:
        seen.update(path.name.partition("-")[0] for path in work_dir.iterdir())

    Lake(tmp_path / "lake", work_dir=work_dir).load(write_export(tmp_path / "a", {"m": (8, "x")}), progress=look)
    assert {"chatexport"} == seen
    assert [] == list(work_dir.iterdir())


# Queries


def test_a_query_is_a_relation_in_utc(shared: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same instants in every form, wherever the process runs."""
    monkeypatch.setenv("TZ", "America/New_York")
    moment = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
    relation = shared.sql("SELECT created_at, date_trunc('day', created_at) AS day FROM messages ORDER BY ALL LIMIT 1")
    assert [(moment, moment.replace(hour=0, minute=0))] == relation.fetchall()
    frame = relation.df()
    assert ["datetime64[us, UTC]"] * 2 == [str(each) for each in frame.dtypes]
    assert pd.Timestamp(moment) == frame["created_at"][0]
    assert "timestamp[us, tz=UTC]" == str(relation.to_arrow_table().schema.field("created_at").type)
    assert [["2026-01-01T10:30:00.000000Z"]] == shared.fetch("SELECT min(created_at) FROM messages").rows


def test_the_session_is_utc_in_a_process_elsewhere(shared: Lake) -> None:
    """DuckDB reads the system's time zone when it starts, so this needs a process of its own."""
    code = (
        "import sys; from airflow_provider_chatexport.lake import Lake; lake = Lake(sys.argv[1]); "
        "print(lake.sql('SELECT created_at::VARCHAR FROM messages ORDER BY 1 LIMIT 1').fetchall()[0][0]); "
        "print(lake.table('messages', since='2026-01-02', until='2026-01-03').df().created_at.dtype)"
    )
    command, elsewhere = [sys.executable, "-c", code, shared.uri], {**os.environ, "TZ": "America/New_York"}
    ran = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=True)
    assert "2026-01-01 10:30:00+00\ndatetime64[us, UTC]\n" == ran.stdout


def test_a_query_takes_parameters(shared: Lake) -> None:
    """Values from outside need no quoting, and cannot become SQL."""
    assert [(1,)] == shared.sql("SELECT count(*) FROM messages WHERE cid = $1", ["b:2"]).fetchall()
    assert [(0,)] == shared.sql("SELECT count(*) FROM messages WHERE cid = $cid", {"cid": "' OR true --"}).fetchall()


@pytest.mark.parametrize(
    ("query", "parameters", "sentence"),
    [
        ("SELECT $cid", None, r"has the parameters \$cid and is given none"),
        ("SELECT $1", [1, 2], r"has the parameters \$1 and is given \$1, \$2"),
        ("SELECT $a", {"b": 1}, r"has the parameters \$a and is given \$b"),
        ("SELECT nothing FROM messages", None, "the query is wrong: Binder Error"),
        ("FROM nothing", None, "the query is wrong: Catalog Error"),
        ("SELEC 1", None, "the query is wrong: Parser Error"),
        ("SELECT 1; SELECT 2", None, "give one query"),
        ("DELETE FROM messages", None, "nothing in a lake is changed by SQL"),
        ("CREATE TABLE a AS FROM messages", None, "nothing in a lake is changed by SQL"),
        ("COPY messages TO 'a-file'", None, "nothing in a lake is changed by SQL"),
        ("ATTACH 'another.duckdb'", None, "nothing in a lake is changed by SQL"),
        ("EXPLAIN ANALYZE FROM messages", None, "nothing in a lake is changed by SQL"),
        ("", None, "give one query"),
    ],
)
def test_a_wrong_query_is_one_sentence(query: str, parameters: Any, sentence: str, shared: Lake) -> None:
    """A query that would change something is wrong, too: readers share the lake."""
    with pytest.raises(CallError, match=sentence):
        shared.sql(query, parameters)


def test_a_query_reads_no_python_variable(shared: Lake) -> None:
    """DuckDB would take a table that is missing from the variables of any calling function."""
    messages_of_mine = shared.sql("FROM messages").df()
    assert len(messages_of_mine)
    with pytest.raises(CallError, match="messages_of_mine does not exist"):
        shared.sql("FROM messages_of_mine")


def test_a_relation_cannot_write_into_the_lake(shared: Lake) -> None:
    """Relations have methods that create tables. They fail on the catalog, and files outside of it are the caller's."""
    with pytest.raises(duckdb.Error, match="read-only"):
        shared.sql("FROM messages").create("a_table")


def test_a_file_that_is_missing_is_one_sentence(loaded: Lake) -> None:
    for path in Path(loaded.uri).glob("_files/messages/*/*.pq"):
        path.unlink()
    with pytest.raises(LakeError, match=r"because messages/\S+ is missing or damaged .*chatexport repair"):
        loaded.sql("FROM messages")


def test_fetched_rows_are_plain(shared: Lake) -> None:
    """What JSON, XCom and a terminal can hold."""
    columns, rows = shared.fetch("SELECT id, created_at, [cid] AS cids FROM messages WHERE cid = 'b:2'")
    assert ["id", "created_at", "cids"] == columns
    assert [["b:2 2026-01-01T10:30:00Z", "2026-01-01T10:30:00.000000Z", ["b:2"]]] == json.loads(json.dumps(rows))


def test_queries_show_one_state_until_the_lake_is_closed(lake: Lake, tmp_path: Path) -> None:
    """Two queries of a notebook fit together, whatever other processes load in between."""
    lake.load(write_export(tmp_path / "a", {"a": (8, "x")}))
    assert ["a"] == ids(lake.table("messages"))
    Lake(lake.uri).load(write_export(tmp_path / "b", {"b": (9, "x")}))
    assert ["a"] == ids(lake.table("messages"))
    lake.close()
    assert ["a", "b"] == ids(lake.table("messages"))


def test_what_a_lake_object_does_shows_in_its_next_query(loaded: Lake, tmp_path: Path) -> None:
    """A relation from before goes on showing the lake as it was."""
    before = loaded.table("messages")
    assert 3 == len(before)
    loaded.load(write_export(tmp_path / "new", {"new": (11, "x")}, cid="c:3"))
    assert "new" in ids(loaded.table("messages"))
    assert "new" not in ids(before)
    loaded.compact()
    assert 4 == len(loaded.table("messages"))
    loaded.forget_user("ann-17")
    assert ["new"] == ids(loaded.table("messages"))


def test_closing_ends_the_relations(loaded: Lake) -> None:
    relation = loaded.sql("FROM messages")
    loaded.close()
    loaded.close()
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        relation.fetchall()


# Tables


@pytest.mark.parametrize(
    ("narrowed", "expected"),
    [
        ({}, ["a:1 01", "a:1 02", "b:2 01"]),
        ({"channels": "a:1"}, ["a:1 01", "a:1 02"]),
        ({"channels": ("a:1", "b:2", "c:3")}, ["a:1 01", "a:1 02", "b:2 01"]),
        ({"since": "2026-01-02"}, ["a:1 02"]),
        ({"since": "2026-01-01T10:30:00Z", "until": "2026-01-02T10:30:00Z"}, ["a:1 01", "b:2 01"]),
        ({"since": "2026-01-01T10:30:00.000001Z", "until": "2026-01-02T10:30:00.000001Z"}, ["a:1 02"]),
        ({"until": date(2026, 1, 2)}, ["a:1 01", "b:2 01"]),
        ({"until": datetime(2026, 1, 2, tzinfo=UTC), "channels": ["b:2"]}, ["b:2 01"]),
        ({"since": "2026-01-01T05:30:00-05:00", "until": "2026-01-01T05:31:00-05:00"}, ["a:1 01", "b:2 01"]),
        ({"channels": ["c:3"]}, []),
    ],
)
def test_a_table_is_narrowed_to_channels_and_a_window(
    narrowed: dict[str, Any], expected: list[str], shared: Lake
) -> None:
    """The window is half-open, so that consecutive windows tile."""
    assert expected == [f"{each[:3]} {each[12:14]}" for each in ids(shared.table("messages", **narrowed))]


def test_a_window_reads_only_the_files_of_its_days(shared: Lake) -> None:
    """A query about a month must not read the rows of years, whether newer exports hide some of them or not."""
    plan = shared.table("messages", since="2026-01-02").explain()
    assert 2 == plan.count("event_date >= '2026-01-02'::DATE")  # by the statistics of whole and of partly hidden files


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [("reactions", 0), ("channels", 2), ("users", 2), ("rejects", 0), ("loads", 4), ("coverage", 4),
     ("messages_history", 3), ("late_changes", 0)],
)  # fmt: skip
def test_every_view_is_a_table(name: str, n_rows: int, shared: Lake) -> None:
    assert n_rows == len(shared.table(name))


def test_the_time_of_a_table_is_its_own(loaded: Lake, tmp_path: Path) -> None:
    """Reactions have the day of their message; rejects, for lack of a time, that of the export."""
    lines = [
        line("channel", channel("d:4")),
        line("message", message("m", cid="d:4", created_at="2026-01-01T23:00:00Z")),
        line("reaction", {"message_id": "m", "user_id": "u", "type": "like", "created_at": "2026-01-09T00:00:00Z"}),
        b"no JSON",
    ]
    loaded.load(write_lines(tmp_path / "more", lines), exported_at=datetime(2026, 1, 10, tzinfo=UTC))
    for name, day in (("reactions", 1), ("messages_history", 1), ("rejects", 10)):
        counts = [
            len(loaded.table(name, since=date(2026, 1, each), until=date(2026, 1, each + 1))) for each in (day, day + 1)
        ]
        assert counts[0] > 0, name
        assert counts[0] > counts[1] or name == "messages_history"
    assert 1 == len(loaded.table("messages_history", channels="d:4"))


@pytest.mark.parametrize(
    ("name", "narrowed", "sentence"),
    [
        ("mesages", {}, "the lake has no table 'mesages'; its tables are messages, "),
        ("messages; DROP", {}, "the lake has no table"),
        ("users", {"channels": "a:1"}, "users has no channels; leave channels out. Tables with channels: messages, "),
        ("users", {"since": "2026-01-01"}, "users has no time to choose by; .* Tables with a time: messages, "),
        ("coverage", {"until": "2026-01-01"}, "coverage has no time to choose by"),
        ("messages", {"channels": "general"}, "'general' is not a channel; write TYPE:ID"),
        ("messages", {"channels": []}, "the list of channels is empty"),
        ("messages", {"since": "2026-01-01T10:00"}, "has no time zone"),
        ("messages", {"since": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ("messages", {"since": "yesterday"}, "is not a time"),
        ("messages", {"since": "2026-01-02", "until": "2026-01-01"}, "is reversed"),
        ("messages", {"since": "2026-01-02", "until": "2026-01-02"}, "zero length"),
        ("messages", {"since": ""}, "since is missing"),
    ],
)
def test_a_table_that_cannot_be_narrowed_so_says_what_can(
    name: str, narrowed: dict[str, Any], sentence: str, lake: Lake
) -> None:
    """The call is wrong whatever is in the lake."""
    with pytest.raises(CallError, match=sentence):
        lake.table(name, **narrowed)


# Coverage


def test_coverage_is_spans_and_runs(shared: Lake) -> None:
    """Spans say what is covered; runs also how often, and where the gaps are."""
    spans = shared.coverage().spans
    assert [("a:1", 2, 1), ("a:1", 1, 1), ("b:2", 1, 1)] == [(span.cid, span.loads, span.messages) for span in spans]
    assert (datetime(2026, 1, 2, 8, tzinfo=UTC), datetime(2026, 1, 2, 12, tzinfo=UTC)) == (
        spans[1].since,
        spans[1].until,
    )
    assert [1, 2, 0, 1] == [run.n_entries for run in shared.coverage_runs()["a:1"]]
    assert {"a:1", "b:2"} == shared.coverage_runs().keys()


def test_coverage_of_some_channels(shared: Lake) -> None:
    assert {"b:2"} == {span.cid for span in shared.coverage("b:2").spans}
    assert {"b:2"} == shared.coverage_runs(["b:2", "c:3"]).keys()
    assert () == shared.coverage(["c:3"]).spans
    with pytest.raises(CallError, match="write TYPE:ID"):
        shared.coverage("general")


def test_gaps_are_what_no_export_covers(shared: Lake) -> None:
    """A program exports them, and nothing else."""

    def hours(*channels: str, **bounds: Any) -> dict[str, list[tuple[str, str]]]:
        found = shared.gaps(list(channels) or None, **{"until": "2026-01-02T12:00:00Z", **bounds})
        return {cid: [(f"{span.since:%dT%H}", f"{span.until:%dT%H}") for span in spans] for cid, spans in found.items()}

    assert {"a:1": [("01T12", "02T08")], "b:2": [("01T12", "02T12")]} == hours()
    assert {"a:1": [("01T12", "02T08"), ("02T11", "02T13")], "b:2": [("01T11", "02T13")]} == hours(
        until="2026-01-02T15:00:00+02:00", lookback=timedelta(hours=1)
    )
    assert {"b:2": [("01T00", "01T08"), ("01T12", "02T12")]} == hours("b:2", since=date(2026, 1, 1))
    assert {"c:3": [("01T00", "02T12")]} == hours("c:3")  # since the beginning of time: January 1, 1900
    assert {} == hours("b:2", until="2026-01-01T13:00:00Z", grace_period=timedelta(hours=2))
    with pytest.raises(WindowError, match=r"until .* has no time zone"):
        shared.gaps(until=datetime(2026, 1, 3))  # noqa: DTZ001


def test_coverage_without_a_start_is_none(lake: Lake, tmp_path: Path) -> None:
    """A window that reaches to the beginning of time has no start to show."""
    lake.load(write_export(tmp_path / "a", {"a": (8, "x")}), since="1900-01-01", until="2026-01-02", exported_at=NOON)
    (span,) = lake.coverage().spans
    assert (None, datetime(2026, 1, 2, tzinfo=UTC)) == (span.since, span.until)
    assert UTC == span.until.tzinfo
    (entry,) = lake.coverage().to_json()["coverage"]
    assert {"cid": "a:1", "since": None, "until": "2026-01-02T00:00:00.000000Z", "loads": 1, "messages": 1} == entry


# Loads


@pytest.mark.parametrize("as_given", [str, Path, lambda path: [str(path)], lambda path: (each for each in [path])])
def test_files_are_paths_or_text_one_or_many(as_given: Callable[[Path], Any], lake: Lake, tmp_path: Path) -> None:
    report = lake.load(as_given(write_export(tmp_path / "export", {"m": (8, "x")})))
    assert isinstance(report, LoadReport)
    assert (1, False) == (report.record.counts["rows"]["messages"], report.already_loaded)


def test_several_files_are_one_load(lake: Lake, tmp_path: Path) -> None:
    files = [write_export(tmp_path / name, {name: (8, "x")}) for name in ("a", "b")]
    packed = tmp_path / "c.gz"
    packed.write_bytes(gzip.compress(write_export(tmp_path / "c", {"c": (8, "x")}).read_bytes()))
    lake.load([*files, packed], exported_at=NOON)
    assert (["a", "b", "c"], 1) == (ids(lake.table("messages")), len(lake.table("loads")))
    assert lake.load([*files, packed], exported_at=NOON).already_loaded


def test_a_load_takes_a_window_and_a_time_in_any_spelling(lake: Lake, tmp_path: Path) -> None:
    """Rows outside are left out, and the window is covered."""
    path = write_export(tmp_path / "a", {"in": (8, "x"), "out": (9, "x")})
    report = lake.load(path, since=at(8), until=datetime(2026, 1, 1, 9, tzinfo=UTC), exported_at=date(2026, 1, 3))
    assert (1, datetime(2026, 1, 3, tzinfo=UTC)) == (report.record.counts["out_of_window"], report.record.exported_at)
    (span,) = lake.coverage().spans
    assert (8, 9) == (span.since.hour if span.since else None, span.until.hour)


def test_a_load_takes_a_kind(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "user.json"
    path.write_text(json.dumps({"user": user("u1"), "messages": [message()], "reactions": []}))
    assert 1 == lake.load(path, kind="users").record.counts["rows"]["user_export_users"]
    assert 1 == lake.load(path, kind=ExportKind.CHANNELS).record.counts["rows"]["users"]


def test_a_load_takes_options_and_tells_how_far_it_is(lake: Lake, tmp_path: Path) -> None:
    """The options are those of operators and of the command line."""
    stages: list[str] = []
    path = write_lines(tmp_path / "a", [line("message", message(priority=7)), b"no JSON"])
    with pytest.raises(InputError, match="0 are allowed"):
        lake.load(path, options=LoadOptions(max_rejected=0))
    options = LoadOptions(promote={"messages": {"priority": "BIGINT"}})
    lake.load(path, options=options, progress=lambda stage, done, whole: stages.append(stage))
    assert [(7,)] == lake.sql("SELECT priority FROM messages").fetchall()
    assert {"read", "convert", "write"} <= set(stages)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"files": []}, CallError, "there is no file to load"),
        ({"files": "none"}, InputError, "none cannot be read"),
        ({"since": "2026-01-01"}, CallError, "give both since and until"),
        ({"until": "2026-01-01"}, CallError, "give both since and until"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, WindowError, "is reversed"),
        ({"exported_at": "2026-01-01T10:00"}, WindowError, "exported_at .* has no time zone"),
        ({"exported_at": "yesterday"}, WindowError, "^exported_at is not a time"),
        (
            {"exported_at": datetime.max.replace(tzinfo=UTC)},
            WindowError,
            "^exported_at .* outside of a lake's calendar",
        ),
        ({"kind": "messages"}, CallError, "kind is 'messages'; give channels or users"),
    ],
)
def test_a_load_that_cannot_be_is_one_sentence(
    arguments: dict[str, Any], error: type[Exception], sentence: str, lake: Lake, tmp_path: Path
) -> None:
    path = write_export(tmp_path / "export", {"m": (8, "x")})
    with pytest.raises(error, match=sentence):
        lake.load(**({"files": path} | arguments))
    assert not lake.exists()


# Maintenance


def test_a_lake_is_checked_merged_and_cleaned(loaded: Lake) -> None:
    """Queries show the same afterwards, and old files are gone."""
    before = ids(loaded.table("messages"))
    report = loaded.verify()
    assert (False, ["gap"]) == (report.ok, [finding.kind for finding in report.findings])
    assert loaded.compact().files_before > 0
    assert 0 == loaded.compact().files_before
    assert loaded.vacuum().superseded == ()
    assert loaded.vacuum(keep=timedelta(0), history=True).superseded
    assert before == ids(loaded.table("messages"))


def test_a_person_is_forgotten(loaded: Lake, tmp_path: Path) -> None:
    """With the messages or without, and out of every later load."""
    kept = loaded.forget_user("ann-17", keep_messages=True)
    assert (4, True) == (kept.blanked["messages"], kept.keep_messages)  # one of them is hidden by a newer export
    assert [(None, None)] == loaded.sql("SELECT DISTINCT user_id, text FROM messages").fetchall()
    loaded.load(write_export(tmp_path / "again", {"again": (11, "x")}, user={"id": "ann-17"}))
    assert [(None,)] == loaded.sql("SELECT user_id FROM messages WHERE id = 'again'").fetchall()
    with pytest.raises(CallError, match="there is no user id"):
        loaded.forget_user(" ")


def test_a_lost_catalog_is_rebuilt(loaded: Lake) -> None:
    Path(loaded.catalog).unlink()
    with pytest.raises(LakeError, match="has no catalog; run chatexport catalog"):
        loaded.sql("FROM messages")
    loaded.rebuild_catalog()
    assert 3 == len(loaded.table("messages"))


# Results


def test_results_are_json(loaded: Lake) -> None:
    """Keys of JSON are the command line's, which scripts read."""
    results = [loaded.coverage(), loaded.verify(), loaded.compact(), loaded.vacuum(), loaded.forget_user("ann-17")]
    for result in results:
        assert json.loads(json.dumps(result.to_json())) == result.to_json()
    assert {"ok", "loads", "files", "findings"} == loaded.verify().to_json().keys()


def test_results_print_as_text(shared: Lake) -> None:
    """Facts in a column, and lists of findings or spans as a table."""
    text = str(shared.verify())
    assert text.startswith("VerifyReport\n\n  ok     no\n  loads  4\n")
    assert "\n\nfindings\n  kind  fault  what\n  gap   yes    a:1 is not covered from 2026-01-01T12" in text
    assert "\n\ncoverage\n  cid  since " in str(shared.coverage())
    assert "CoverageReport\n\n  coverage  -" == str(shared.coverage("c:3"))


def test_a_load_prints_what_it_wrote(lake: Lake, tmp_path: Path) -> None:
    text = str(lake.load(write_export(tmp_path / "a", {"m": (8, "x")}), since=at(8), until=at(9)))
    assert re.search(r"\n  rows +messages 1, channels 1, users 1\n", text)
    assert re.search(r"\n  files +messages/event_month=2026-01/\S+ and 2 more\n", text)
    assert "since 2026-01-01T08:00:00.000000Z, until 2026-01-01T09:00:00.000000Z" in text


def test_a_notebook_shows_results_as_html(lake: Lake, tmp_path: Path) -> None:
    """Ids come from people: they are escaped."""
    lines = [
        line("channel", channel("a:<b>")),
        line("message", message("m", cid="a:<b>", created_at=at(8))),
    ]
    lake.load(write_lines(tmp_path / "a", lines), since=at(8), until=at(9))
    page = lake.coverage()._repr_html_()
    assert '<td style="text-align: left">a:&lt;b&gt;</td>' in page
    assert "a:<b>" not in page
    assert "<strong>VerifyReport</strong>" in lake.verify()._repr_html_()


# An object store


def test_a_lake_in_an_object_store_is_used_alike(bucket: LakeProbe, tmp_path: Path) -> None:
    """Loads, queries, coverage, maintenance, and a catalog that is opened again after each change."""
    with Lake(bucket.uri) as lake:
        assert not lake.exists()
        assert (False, f"{bucket.uri}/catalog.duckdb") == (lake.is_local, lake.catalog)
        lake.load(write_export(tmp_path / "a", {"a": (8, "x")}, user={"id": "ann-17"}), since=at(8), until=at(9))
        before = lake.table("messages", channels="a:1", since=at(8), until=at(9))
        assert ["a"] == ids(before)
        lake.load(write_export(tmp_path / "b", {"b": (9, "x")}), since=at(9), until=at(10))
        assert ["a", "b"] == ids(lake.table("messages"))
        assert ["a"] == ids(before)
        (span,) = lake.coverage().spans
        assert (2, 2) == (span.loads, span.messages)
        assert "datetime64[us, UTC]" == str(lake.table("messages").df().dtypes["created_at"])
        assert lake.compact().files_after > 0
        assert lake.verify().ok
        assert 1 == lake.forget_user("ann-17").removed["messages"]
        assert ["b"] == ids(lake.table("messages"))
        lake.vacuum(keep=timedelta(0))
        lake.rebuild_catalog()
        assert [["b"]] == lake.fetch("SELECT id FROM messages").rows
