"""Queries over the catalog's views: as a DuckDB relation, as plain rows, and the question what is covered."""

from __future__ import annotations

import base64
import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog.table_query import in_channels
from airflow_provider_chatexport.lake.duckdb_session import suspects
from airflow_provider_chatexport.lake.printing import Report
from airflow_provider_chatexport.lake.schema import sql

Parameters = Sequence[Any] | Mapping[str, Any]

# The errors that DuckDB raises before it reads a row. The text of any other may quote a value: what a person wrote.
_WRONG_QUERY: Final = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)

# Types without a counterpart in Python or Arrow: a time of day with a zone, or at 24:00; bits; very large numbers.
_AS_TEXT: Final = frozenset({"time", "time with time zone", "time_ns", "bit", "uhugeint", "bignum", "variant"})


class QueryResult(NamedTuple):
    """Column names, and rows of plain values: see ``plain``."""

    columns: list[str]
    rows: list[list[Any]]


def relation(
    con: duckdb.DuckDBPyConnection, query: str, parameters: Parameters | None = None
) -> duckdb.DuckDBPyRelation:
    """Return one query over the catalog as a relation.

    DuckDB reads the rows when the relation is asked for them; a query with parameters is run at once.

    :param parameters: values for ``$1``, ``$2``, ... as a sequence, or for ``$name`` as a mapping.
    :raises CallError: the query is wrong as it stands, is not one query, or would change something.
    :raises LakeError: a file that the query reads is missing, or the query fails on a value.
    """
    with _query_errors():
        try:
            _check(con, query, parameters)
            return con.sql(query) if parameters is None else con.sql(query, params=parameters)
        except _WRONG_QUERY as error:
            raise CallError(f"the query is wrong: {_first_line(error)}") from None


def fetch(con: duckdb.DuckDBPyConnection, query: str) -> QueryResult:
    """Return all rows of one query over the catalog. Ctrl-C ends it at any moment.

    :raises CallError: the query is wrong as it stands, is not one query, or would change something.
    :raises LakeError: a file that the query reads is missing, or the query fails on a value.
    """
    with _query_errors():
        table = _interruptible(con, lambda: _arrow_table(relation(con, query)))
    try:
        values = [column.to_pylist() for column in table.columns]
    except (ValueError, OverflowError):
        raise LakeError("the query's result has a time outside of the years 1 to 9999; cast it to text") from None
    rows = [[plain(value) for value in row] for row in zip(*values, strict=True)]
    return QueryResult(list(table.column_names), rows)


def _check(con: duckdb.DuckDBPyConnection, query: str, parameters: Parameters | None) -> None:
    """Refuse what is not one query that only reads, and parameters that are not those of the query."""
    try:
        query.encode()
    except UnicodeEncodeError:
        raise CallError(
            "the query has bytes that are not UTF-8; set the terminal's encoding, or write chr(...)"
        ) from None
    statements = con.extract_statements(query)
    types = [each.type for each in statements]
    # A PIVOT without values creates a type of them first. So does CREATE TABLE AS PIVOT, and the two look the same.
    if types == [duckdb.StatementType.MULTI]:
        raise CallError("a PIVOT has to name its values here, such as PIVOT messages ON type IN ('regular', 'reply')")
    # EXPLAIN is refused, too, because EXPLAIN ANALYZE runs the statement that follows.
    if types != [duckdb.StatementType.SELECT]:
        raise CallError("give one query, such as SELECT count(*) FROM messages; nothing in a lake is changed by SQL")
    has, given = _listed(statements[0].named_parameters), _listed(_names(parameters or ()))
    if has != given:
        raise CallError(f"the query has the parameters {has} and is given {given}; give the same")


def _names(parameters: Parameters) -> Iterable[str]:
    return parameters if isinstance(parameters, Mapping) else (str(number + 1) for number in range(len(parameters)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names)) or "none"


@contextlib.contextmanager
def _query_errors() -> Iterator[None]:
    """Raise every error of DuckDB as a ``LakeError`` that quotes no value of the data."""
    try:
        yield
    except duckdb.Error as error:
        raise _as_lake_error(error) from None


def _as_lake_error(error: duckdb.Error) -> LakeError:
    if files := suspects(error):
        return LakeError(
            f"the query failed, because {files[0]} is missing or damaged ({type(error).__name__}); restore it from a "
            "backup, or run chatexport repair to go on without it. If the lake was moved, run chatexport catalog",
            suspects=files,
        )
    if isinstance(error, duckdb.OperationalError):
        return LakeError(f"the query failed: {_first_line(error)}")
    return LakeError(
        f"the query failed on a value, which is not quoted here ({type(error).__name__}); TRY_CAST and TRY make such "
        "values null, and chatexport verify finds damaged files"
    )


def _arrow_table(bound: duckdb.DuckDBPyRelation) -> pa.Table:
    """Run a query. Arrow reads TIMESTAMPTZ without the package of time zones that ``fetchall`` needs."""
    types = [each.id for each in bound.types]
    if _AS_TEXT.intersection(types):
        shown = [
            f"#{at}{'::VARCHAR' * (each in _AS_TEXT)} AS {sql.name(name)}"  # several may have one name
            for at, (name, each) in enumerate(zip(bound.columns, types, strict=True), 1)
        ]
        bound = bound.project(", ".join(shown))
    return bound.to_arrow_table()


def _interruptible(con: duckdb.DuckDBPyConnection, work: Callable[[], pa.Table]) -> pa.Table:
    """Do a connection's work in a second thread: in the main thread, DuckDB finishes most queries despite Ctrl-C."""
    answer: Future[pa.Table] = Future()
    given_up = threading.Event()

    def run() -> None:
        if not given_up.is_set():
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                answer.set_exception(error)

    second = threading.Thread(target=run)
    try:
        second.start()
        return answer.result()
    except KeyboardInterrupt:
        # If the thread is only starting, the event stops it. An interrupt before DuckDB begins has no effect, so
        # interrupt until the thread has ended.
        given_up.set()
        while second.is_alive():
            con.interrupt()
            second.join(0.1)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredSpan:
    """A span of time of one channel that loads cover without a gap: ``[since, until)``, aware, UTC.

    :param since: None for the beginning of time.
    :param loads: how many loads the span consists of.
    :param messages: how many messages the lake shows in it.
    """

    cid: str
    since: datetime | None
    until: datetime
    loads: int
    messages: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON types; times as RFC3339."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageReport(Report):
    """What a lake covers: spans by channel, then by time. There is a gap between two spans of a channel."""

    spans: tuple[CoveredSpan, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON types; the shape is part of the outer contract."""
        return {"coverage": [span.to_json() for span in self.spans]}


def coverage(con: duckdb.DuckDBPyConnection, channels: Sequence[str] | None = None) -> CoverageReport:
    """Return the spans of time that are covered without a gap.

    It reads the catalog, which has the coverage, and the channels and times of the messages in it.

    :param channels: only these; None for all.
    :raises LakeError: a file of the lake is missing.
    """
    of_channels = "true" if channels is None else in_channels(channels)
    bound = relation(
        con,
        f"""
        WITH entries AS (
            SELECT *, since IS NOT NULL AND since > max(until) OVER (
                PARTITION BY cid ORDER BY since NULLS FIRST, until ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS starts
            FROM coverage WHERE {of_channels}
        ), numbered AS (
            SELECT *, count(*) FILTER (starts) OVER (PARTITION BY cid ORDER BY since NULLS FIRST, until) AS span
            FROM entries
        ), spans AS (
            SELECT cid, CASE WHEN bool_or(since IS NULL) THEN NULL ELSE min(since) END AS since,
                   max(until) AS until, count(DISTINCT load_id) AS loads
            FROM numbered GROUP BY cid, span
        )
        SELECT spans.cid, spans.since, spans.until, loads, count(messages.id) AS messages
        FROM spans LEFT JOIN (FROM messages WHERE {of_channels}) messages ON messages.cid = spans.cid
             AND (spans.since IS NULL OR created_at >= spans.since) AND created_at < spans.until
        GROUP BY ALL ORDER BY spans.cid, spans.since NULLS FIRST
        """,
    )
    with _query_errors():
        rows = _interruptible(con, lambda: _arrow_table(bound)).to_pylist()
    return CoverageReport(
        spans=tuple(CoveredSpan(**{name: _in_utc(value) for name, value in row.items()}) for row in rows)
    )


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def plain(value: Any) -> Any:  # noqa: PLR0911 - a case for each type
    """Return a value as people and JSON read it.

    Times become RFC3339, intervals days and hours, and bytes base64. A decimal becomes text if a number would lose
    digits. NaN and infinity become null.
    """
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
