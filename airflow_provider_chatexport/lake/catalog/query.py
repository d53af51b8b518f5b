"""Queries over the catalog's views as DuckDB relations, their errors, and the question what is covered."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import duckdb

from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.catalog.table_query import in_channels
from airflow_provider_chatexport.lake.catalog.values import plain
from airflow_provider_chatexport.lake.duckdb_session import suspects
from airflow_provider_chatexport.lake.printing import Report

Parameters = Sequence[Any] | Mapping[str, Any]

# The errors that DuckDB raises before it reads a row. The text of any other may quote a value: what a person wrote.
_WRONG_QUERY: Final = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)

# What DuckDB adds to its sentence: the line of the query that is wrong, under which it draws an arrow.
_AT_LINE: Final = re.compile(r"^LINE (\d+):", re.MULTILINE)
_HINTS: Final = 4

_Result = TypeVar("_Result")


def relation(
    con: duckdb.DuckDBPyConnection, query: str, parameters: Parameters | None = None
) -> duckdb.DuckDBPyRelation:
    """Return one query over the catalog as a relation.

    DuckDB reads the rows when the relation is asked for them; a query with parameters is run at once.

    :param parameters: values for ``$1``, ``$2``, ... as a sequence, or for ``$name`` as a mapping.
    :raises CallError: the query is wrong as it stands, is not one query, or would change something.
    :raises LakeError: a file that the query reads is missing, or the query fails on a value.
    """
    with query_errors():
        try:
            _check(con, query, parameters)
            query = _without_end(query)
            return con.sql(query) if parameters is None else con.sql(query, params=parameters)
        except _WRONG_QUERY as error:
            raise CallError(f"the query is wrong: {_what_is_wrong(error)}") from None


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


def _without_end(query: str) -> str:
    """Return the query without its last semicolon and what follows, because DuckDB puts a relation into brackets."""
    text = query.encode()
    end = len(text)
    for start, kind in reversed(duckdb.tokenize(query)):
        if text[start : start + 1] == b";":
            end = start
        elif kind != duckdb.token_type.comment:
            break
    return text[:end].decode()


def _names(parameters: Parameters) -> Iterable[str]:
    return parameters if isinstance(parameters, Mapping) else (str(number + 1) for number in range(len(parameters)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in sorted(names)) or "none"


@contextlib.contextmanager
def query_errors() -> Iterator[None]:
    """Raise every error of DuckDB as a ``LakeError`` that quotes no value of the data."""
    try:
        yield
    except duckdb.Error as error:
        raise _failed(type(error).__name__, error) from None
    except OSError as error:
        # An Arrow reader passes on only the text of DuckDB's error: ``Conversion Error: ...``.
        raise _failed(str(error).partition(" Error:")[0].replace(" ", "") + "Exception", error) from None


def _failed(kind: str, error: Exception) -> LakeError:
    if files := suspects(error):
        return LakeError(
            f"the query failed, because {files[0]} is missing or damaged ({kind}); restore it from a backup, or run "
            "chatexport repair to go on without it. If the lake was moved, run chatexport catalog",
            suspects=files,
        )
    if isinstance(error, duckdb.OperationalError) or kind == "OutofMemoryException":
        return LakeError(f"the query failed: {_first_line(error)}")
    return LakeError(
        f"the query failed on a value, which is not quoted here ({kind}); TRY_CAST and TRY make such values null, and "
        "chatexport verify finds damaged files"
    )


def interruptible(con: duckdb.DuckDBPyConnection, work: Callable[[], _Result]) -> _Result:
    """Do a connection's work in a second thread: in the main thread, DuckDB finishes most queries despite Ctrl-C."""
    answer: Future[_Result] = Future()
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


def _what_is_wrong(error: duckdb.Error) -> str:
    """Return DuckDB's sentence about a query, with the line at fault and its hint: ``Did you mean "messages"?``.

    A hint may list dozens of functions, of which the first ones are enough.
    """
    first, *others = [line.strip() for line in str(error).splitlines()]
    hints = list(itertools.takewhile(lambda line: not _AT_LINE.match(line), others))
    at_line = _AT_LINE.search("\n".join(others))
    heading, *names = [line for line in hints if line] or [""]
    more = f" and {len(names) - _HINTS} more" if len(names) > _HINTS else ""
    where = f" (line {at_line.group(1)})" if at_line and at_line.group(1) != "1" else ""
    return " ".join(filter(None, [first + where, heading, "; ".join(names[:_HINTS]) + more]))


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
    with query_errors():
        rows = interruptible(con, bound.to_arrow_table).to_pylist()
    return CoverageReport(
        spans=tuple(CoveredSpan(**{name: _in_utc(value) for name, value in row.items()}) for row in rows)
    )


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
