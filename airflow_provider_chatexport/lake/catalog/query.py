"""Looks at a lake through its catalog, for those without a DuckDB shell."""

from __future__ import annotations

import base64
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import CoverageRun, coverage_runs
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.storage.store import LakeStore

# What DuckDB says of a query before it reads a row. Whatever else it says may quote a value: what a person wrote.
_WRONG_QUERY: Final = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)

# What Python, or Arrow, has no like of: a time of day with its zone, or at its end; bits, and numbers of any size.
_AS_TEXT: Final = frozenset({"time", "time with time zone", "time_ns", "bit", "uhugeint", "bignum", "variant"})


def run(store: LakeStore, statement: str) -> tuple[list[str], list[list[Any]]]:
    """Column names and rows of one query over the catalog, as ``plain`` has them.

    :raises LakeError: there is no catalog, a file that it names cannot be read, or the query fails on what it reads.
    :raises CallError: the query is wrong as it stands, or would change something.
    """
    catalog_file.require_lake(store)
    with catalog_file.opened(store) as con:
        try:
            found = _interruptible(con, lambda: _found(con, statement))
        except duckdb.IOException as error:
            raise LakeError(
                f"the query failed: {_first_line(error)}; chatexport verify tells what is missing, and chatexport "
                "catalog mends a lake that was moved"
            ) from None
        except duckdb.OperationalError as error:
            raise LakeError(f"the query failed: {_first_line(error)}") from None
        except duckdb.Error as error:
            raise LakeError(
                f"the query failed on a value, which is not quoted here ({type(error).__name__}); TRY_CAST and TRY "
                "make such values null"
            ) from None
    try:
        values = [column.to_pylist() for column in found.columns]
    except (ValueError, OverflowError):
        raise LakeError("the query's result has a time outside of the years 1 to 9999; cast it to text") from None
    return list(found.column_names), [[plain(value) for value in row] for row in zip(*values, strict=True)]


def _found(con: duckdb.DuckDBPyConnection, statement: str) -> pa.Table:
    try:
        bound = con.sql(_one_query(con, statement))
    except _WRONG_QUERY as error:
        raise CallError(f"the query is wrong: {_first_line(error)}") from None
    kinds = [kind.id for kind in bound.types]
    if _AS_TEXT.intersection(kinds):
        shown = [
            f"#{at}{'::VARCHAR' * (kind in _AS_TEXT)} AS {sql.name(name)}"  # several may have one name
            for at, (name, kind) in enumerate(zip(bound.columns, kinds, strict=True), 1)
        ]
        bound = bound.project(", ".join(shown))
    # Arrow rather than fetchall(), which needs a package of time zones for TIMESTAMPTZ.
    return bound.to_arrow_table()


def _interruptible(con: duckdb.DuckDBPyConnection, work: Callable[[], pa.Table]) -> pa.Table:
    """Does a connection's work in a thread beside: in the main thread, most queries run to their end despite Ctrl-C."""
    answer: Future[pa.Table] = Future()
    given_up = threading.Event()

    def find() -> None:
        if not given_up.is_set():
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits
                answer.set_exception(error)

    beside = threading.Thread(target=find)
    try:
        beside.start()
        return answer.result()
    except KeyboardInterrupt:
        # It may come while the thread starts: then that begins nothing. More than once, as DuckDB may not have begun.
        given_up.set()
        while beside.is_alive():
            con.interrupt()
            beside.join(0.1)
        raise


def _one_query(con: duckdb.DuckDBPyConnection, statement: str) -> str:
    try:
        statement.encode()
    except UnicodeEncodeError:
        raise CallError(
            "the query has bytes that are not UTF-8; set the terminal's encoding, or write chr(...)"
        ) from None
    statements = con.extract_statements(statement)
    kinds = [each.type for each in statements]
    # Makes a type of the values first, and so does CREATE TABLE AS PIVOT, which cannot be told from it.
    if kinds == [duckdb.StatementType.MULTI]:
        raise CallError("a PIVOT has to name its values here, such as PIVOT messages ON type IN ('regular', 'reply')")
    # Not EXPLAIN either: EXPLAIN ANALYZE runs whatever follows.
    if kinds != [duckdb.StatementType.SELECT]:
        raise CallError("give one query, such as SELECT count(*) FROM messages; nothing in a lake is changed by SQL")
    return statement


def coverage(store: LakeStore) -> list[dict[str, Any]]:
    """Spans of time that are covered without a gap, per channel: cid, since, until, loads, messages."""
    _, rows = run(
        store,
        """
        WITH entries AS (
            SELECT *, since IS NOT NULL AND since > max(until) OVER (
                PARTITION BY cid ORDER BY since NULLS FIRST, until ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS begins
            FROM coverage
        ), numbered AS (
            SELECT *, count(*) FILTER (begins) OVER (PARTITION BY cid ORDER BY since NULLS FIRST, until) AS span
            FROM entries
        ), spans AS (
            SELECT cid, CASE WHEN bool_or(since IS NULL) THEN NULL ELSE min(since) END AS since,
                   max(until) AS until, count(DISTINCT load_id) AS loads
            FROM numbered GROUP BY cid, span
        )
        SELECT spans.cid, spans.since, spans.until, loads, count(messages.id) AS messages
        FROM spans LEFT JOIN messages ON messages.cid = spans.cid
             AND (spans.since IS NULL OR created_at >= spans.since) AND created_at < spans.until
        GROUP BY ALL ORDER BY cid, since NULLS FIRST
        """,
    )
    keys = ("cid", "since", "until", "loads", "messages")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def coverage_map(store: LakeStore) -> dict[str, list[CoverageRun]]:
    """How often each moment of each channel was loaded, superseded loads included.

    :raises LakeError: there is no lake, or it cannot be read.
    """
    catalog_file.require_lake(store)
    return coverage_runs(entry for record in commit_log.all_loads(store) if record.is_load for entry in record.coverage)


def plain(value: Any) -> Any:  # noqa: PLR0911 - a case for each kind
    """A value as people and JSON read it: times as RFC3339, intervals as days and hours, bytes in base64, a decimal as
    text where a number would lose digits, and null for what is no number."""
    match value:
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case Decimal():
            if value == value.to_integral_value():
                return int(value)
            return float(value) if Decimal(str(float(value))) == value else str(value)
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() if value.tzinfo is not None:
            return format_rfc3339(value)
        case pa.MonthDayNano(months=months, days=days, nanoseconds=ns):
            return f"{months} months " * bool(months) + str(timedelta(days=days, microseconds=ns // 1000))
        case _:
            return value


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
