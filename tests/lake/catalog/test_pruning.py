"""A query of a day opens few files, in a lake of many."""

from __future__ import annotations

import re
from datetime import date

import duckdb
import pytest
from export_objects import channel, line, message, write_lines

from airflow_provider_chatexport.lake import Lake

# A load of a long history writes a file for each month.
N_MONTHS = 225
A_DAY = date(2015, 6, 15)


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with a message in each month since 2008."""
    folder = tmp_path_factory.mktemp("many")
    months = [f"{2008 + number // 12}-{number % 12 + 1:02}" for number in range(N_MONTHS)]
    lines = [line("channel", channel("a:1"))]
    for month in months:
        at = f"{month}-15T10:30:00Z"
        lines.append(line("message", message(month, cid="a:1", created_at=at, user={"id": "ann-17"})))
    lake = Lake(folder / "lake")
    lake.load(write_lines(folder / "from", lines), exported_at="2027-01-01T00:00:00Z")
    return lake


def files_read(lake: Lake, query: str) -> int:
    """Return how many data files DuckDB opens for a query."""
    with duckdb.connect(lake.catalog, read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        ((_, explained),) = con.execute(f"EXPLAIN (ANALYZE, FORMAT json) {query}").fetchall()
    return sum(map(int, re.findall(r'"Total Files Read": "(\d+)"', explained)))


@pytest.mark.parametrize(
    "condition",
    [
        "event_date = DATE '2015-06-15'",
        "created_at >= '2015-06-15T00:00:00Z' AND created_at < '2015-06-16T00:00:00Z'",
        "created_at BETWEEN '2015-06-01T00:00:00Z' AND '2015-06-30T00:00:00Z' AND cid = 'a:1'",
    ],
)
def test_a_query_of_a_day_opens_few_of_many_files(many_files: Lake, condition: str) -> None:
    """The statistics of a file are in the file: to open thousands of files to skip them takes a second."""
    query = f"SELECT id FROM messages WHERE {condition}"
    assert [("2015-06",)] == many_files.sql(query).fetchall()
    assert files_read(many_files, query) < N_MONTHS // 3
    assert files_read(many_files, "SELECT id FROM messages") >= N_MONTHS


def test_a_view_of_many_files_shows_every_row_once(many_files: Lake) -> None:
    """A group of files must not leave out rows at the borders of its days."""
    days = many_files.sql("SELECT count(*), count(DISTINCT id), count(DISTINCT event_date) FROM messages").fetchall()
    assert [(N_MONTHS, N_MONTHS, N_MONTHS)] == days
    assert ["2015-06"] == [
        row[0]
        for row in many_files.table("messages", channels="a:1", since=A_DAY, until="2015-06-16").select("id").fetchall()
    ]
    assert [(N_MONTHS,)] == many_files.sql("SELECT count(*) FROM messages_history").fetchall()
