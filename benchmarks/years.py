"""Eight years of a small app: 200,000 messages, the last year by daily loads, against one plain Parquet file.

    python benchmarks/years.py

The first seven years are one load. Then each day is a load of its window and of the two days before it. All loads are
real, with the compactions after them. The lake is made once, in some two minutes, and kept. Seven questions go to the
catalog's views, and to one file with the same rows that DuckDB wrote.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import files
import msgspec
from reading import Answered, ask_both
from rich.console import Console
from rich.table import Table

from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files

N_MESSAGES = 200_000
N_DAILY = 365
LOOKBACK = timedelta(days=2)
DAY = timedelta(days=1)
FOLDER = files.CACHE / "years"
QUESTIONS = {
    "count": "SELECT count(*) FROM messages",
    "per month": "SELECT date_trunc('month', created_at) AS month, count(*) AS n FROM messages "
    "GROUP BY month ORDER BY month",
    "one message by id": "SELECT id, cid, user_id, text, created_at FROM messages WHERE id = $id",
    "one person": "SELECT id, cid, text, created_at FROM messages WHERE user_id = $user_id ORDER BY created_at, id",
    "one channel": "SELECT id, user_id, text, created_at FROM messages WHERE cid = $cid ORDER BY created_at, id",
    "one day by created_at": "SELECT id, text FROM messages "
    "WHERE created_at >= $since AND created_at < $until ORDER BY id",
    "text search": "SELECT id, text FROM messages WHERE text LIKE '%kernel%' ORDER BY id",
}


def make(folder: Path, export: files.Export, n_daily: int = N_DAILY) -> None:
    """Load the messages of an export, the last days by a load each, and write the plain file."""
    by_day: dict[datetime, list[bytes]] = defaultdict(list)
    with export.path.open("rb") as lines:
        for line in lines:
            at = datetime.fromisoformat(msgspec.json.decode(line)["item"]["created_at"])
            by_day[datetime(at.year, at.month, at.day, tzinfo=UTC)].append(line)
    lake, end = folder / "lake", max(by_day) + DAY
    first = end - n_daily * DAY
    windows = [
        (min(by_day), first),
        *((day - LOOKBACK, day + DAY) for day in (first + n * DAY for n in range(n_daily))),
    ]
    for since, until in windows:
        window = folder / "window.ndjson"
        with window.open("wb") as target:
            for day in sorted(day for day in by_day if since <= day < until):
                target.writelines(by_day[day])
        load_files([window], lake_uri=str(lake), window=Window(since=since, until=until), exported_at=until)
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"COPY (FROM messages ORDER BY created_at) TO '{folder / 'plain.parquet'}' (FORMAT parquet)")


def ask(folder: Path, n_times: int) -> list[Answered]:
    """Ask all questions of both.

    :param folder: what ``make`` wrote.
    """
    with duckdb.connect(str(folder / "lake" / "catalog.duckdb"), read_only=True) as ours, duckdb.connect() as plain:
        plain.execute(f"CREATE VIEW messages AS FROM read_parquet('{folder / 'plain.parquet'}')")
        for con in (ours, plain):
            con.execute("SET TimeZone = 'UTC'")
        values = _values(plain)
        return [ask_both(name, query, values, ours, plain, n_times) for name, query in QUESTIONS.items()]


def measure(n_times: int = 9) -> dict[str, object]:
    """Print the table, and return the figures."""
    if not (FOLDER / "plain.parquet").exists():
        print(f"making a lake of eight years by {N_DAILY + 1} loads", flush=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        make(FOLDER, files.years(N_MESSAGES))
    answers = ask(FOLDER, n_times)
    sizes = [path.stat().st_size for path in (FOLDER / "lake" / "messages").glob("*/*.parquet")]
    ours_mb, plain_mb = sum(sizes) / 1e6, (FOLDER / "plain.parquet").stat().st_size / 1e6
    _show(answers, f"ours {len(sizes)} files, {ours_mb:.1f} MB; plain one file, {plain_mb:.1f} MB")
    return {
        "files": len(sizes),
        "mb": {"ours": ours_mb, "plain": plain_mb},
        "questions": [asdict(each) for each in answers],
    }


def _values(plain: duckdb.DuckDBPyConnection) -> dict[str, object]:
    """Return a message of the middle with its day, the median channel, and the median author."""
    message_id, day = plain.execute(
        "SELECT id, date_trunc('day', created_at) FROM messages ORDER BY created_at LIMIT 1 "
        "OFFSET (SELECT count(*) // 2 FROM messages)"
    ).fetchall()[0]
    values: dict[str, object] = {"id": message_id, "since": day, "until": day + DAY}
    for name in ("cid", "user_id"):
        values[name] = plain.execute(
            f"SELECT {name} FROM (SELECT {name}, count(*) AS n FROM messages GROUP BY ALL) ORDER BY n, {name} LIMIT 1 "
            f"OFFSET (SELECT count(DISTINCT {name}) // 2 FROM messages)"
        ).fetchall()[0][0]
    return values


def _show(answers: list[Answered], sizes: str) -> None:
    title = f"eight years, {N_MESSAGES} messages, {N_DAILY} daily loads: {sizes}"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "rows", "ours ms", "plain ms", "ours CPU ms", "plain CPU ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in answers:
        figures = (row.ours_ms, row.plain_ms, row.ours_cpu_ms, row.plain_cpu_ms)
        table.add_row(row.question, str(row.rows), *(f"{figure:.0f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    measure()
