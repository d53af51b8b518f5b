"""Reading: four questions to a lake of several years, and to the same rows as plain DuckDB wrote them."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

QUESTIONS = {
    "one message by id": "SELECT id, cid, user_id, text, created_at, custom FROM messages WHERE id = $id",
    "one channel's history": "SELECT id, user_id, text, created_at FROM messages WHERE cid = $cid ORDER BY created_at",
    "one person's messages": "SELECT id, cid, text, created_at FROM messages WHERE user_id = $user_id "
    "ORDER BY created_at",
    "messages per day": "SELECT event_date, count(*) AS n FROM messages GROUP BY event_date ORDER BY event_date",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question that both lakes answered in turn: the best wall time of each, and the least CPU time."""

    question: str
    rows: int
    ours_ms: float
    plain_ms: float
    ours_cpu_ms: float
    plain_cpu_ms: float


_PLACES = {"ours": "ours/messages", "plain": "plain"}


def sizes_mb(folder: Path) -> dict[str, float]:
    """Return the size of the Parquet files of both lakes."""
    files = {name: (folder / place).glob("*/*.parquet") for name, place in _PLACES.items()}
    return {name: round(sum(each.stat().st_size for each in paths) / 1e6, 1) for name, paths in files.items()}


def ask(folder: Path, n_times: int) -> list[Answered]:
    """Ask all questions. Our lake is read through ``catalog.duckdb``, the plain one through a glob.

    :param folder: what ``history.py`` wrote.
    """
    values = _values(folder)
    with duckdb.connect(str(folder / "ours" / "catalog.duckdb"), read_only=True) as ours, duckdb.connect() as plain:
        plain.execute(
            f"CREATE VIEW messages AS FROM read_parquet('{folder}/plain/*/*.parquet', hive_partitioning = true)"
        )
        for con in (ours, plain):
            con.execute("SET TimeZone = 'UTC'")
        return [ask_both(question, query, values, ours, plain, n_times) for question, query in QUESTIONS.items()]


def ask_both(
    question: str,
    query: str,
    values: Mapping[str, object],
    ours: duckdb.DuckDBPyConnection,
    plain: duckdb.DuckDBPyConnection,
    n_times: int,
) -> Answered:
    """Ask both one question in turn, and compare the answers.

    :param values: of the parameters of all questions.
    """
    parameters = {name: value for name, value in values.items() if f"${name}" in query}
    wall_s: dict[bool, list[float]] = {True: [], False: []}
    cpu_s: dict[bool, list[float]] = {True: [], False: []}
    answers = {}
    for _ in range(n_times):
        for is_ours, con in ((True, ours), (False, plain)):
            wall_before_s, cpu_before_s = time.perf_counter(), _cpu_s()
            answers[is_ours] = con.sql(query, params=parameters).to_arrow_table()
            wall_s[is_ours].append(time.perf_counter() - wall_before_s)
            cpu_s[is_ours].append(_cpu_s() - cpu_before_s)
    if not answers[True].num_rows or answers[True].to_pylist() != answers[False].to_pylist():
        raise SystemExit(f"{question}: the two lakes answer differently, so their times cannot be compared")
    return Answered(
        question=question,
        rows=answers[True].num_rows,
        ours_ms=round(min(wall_s[True]) * 1000, 1),
        plain_ms=round(min(wall_s[False]) * 1000, 1),
        ours_cpu_ms=round(min(cpu_s[True]) * 1000, 1),
        plain_cpu_ms=round(min(cpu_s[False]) * 1000, 1),
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _values(folder: Path) -> dict[str, str]:
    """Return a message of the middle, a channel with about a hundredth of all messages, and the median author."""
    with duckdb.connect(str(folder / "history.duckdb"), read_only=True) as con:
        row = con.execute(
            """
            SELECT
                (SELECT id FROM history ORDER BY created_at LIMIT 1 OFFSET (SELECT count(*) // 2 FROM history)),
                'messaging:room-20',
                (
                    SELECT user_id FROM (SELECT user_id, count(*) AS n FROM history GROUP BY user_id)
                    ORDER BY n, user_id LIMIT 1 OFFSET (SELECT count(DISTINCT user_id) // 2 FROM history)
                )
            """
        ).fetchall()[0]
    return dict(zip(("id", "cid", "user_id"), row, strict=True))
