"""Writing ``catalog.duckdb``: the views that people query, from the registry of tables and the records of loads.

A new catalog replaces the last one in one step: readers who have the last one open go on reading the lake as it was
when they opened it.

The catalog has two schemas. ``main`` holds what people see: views, their comments, and macros. It is the same after
every load. ``_internal`` holds what a load changes: the lists of files, the metadata rows, the coverage that hides
rows. So a load copies the last catalog and replaces ``_internal`` alone, which takes a fraction of the time that
some four hundred statements for views and comments take.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import empty_files, history_view, macros, metadata_views
from airflow_provider_chatexport.lake.catalog.catalog_file import BUILT_FROM, NAME, SIZES
from airflow_provider_chatexport.lake.catalog.metadata_views import INTERNAL_SCHEMA, internal_name
from airflow_provider_chatexport.lake.catalog.stand_ins import stand_ins
from airflow_provider_chatexport.lake.catalog.table_views import MASKING_ENTRIES, versions, visible_rows
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage_tables import entry_rows, set_rows
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import quiet, suspects
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, SCHEMA_VERSION
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore

# The oldest storage that DuckDB 2.0 writes and that DuckDB 1.2 reads.
STORAGE_VERSION: Final = "v1.2.0"
# Blank catalogs by their public statements. None: the process has created one new lake so far.
_BLANKS: Final[dict[str, bytes | None]] = {}


def publish(store: LakeStore, snapshot: Snapshot, *, full: bool = False) -> bool:
    """Replace the catalog by one that shows what the records say, unless it shows all of these records already.

    Of eight loads that finish together, one shows the records of several, and the others find nothing to do.

    :param full: build it from nothing, whatever the last one is like.
    :return: False if the catalog also shows other records: those that came since, or one that a person moved out.
    :raises LakeError: the lake cannot be read or written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / NAME
            statements = [*_public_statements(snapshot)]
            digest = _digest(store, statements, snapshot)
            last = _Last.UNUSABLE if full else _update_copy(path, store, snapshot, digest)
            if last in (_Last.SHOWS_THESE, _Last.SHOWS_MORE):
                return last is _Last.SHOWS_THESE
            if last is not _Last.UPDATED:
                empty_files.write_missing(store, check=full)
                if last is _Last.MISSING and (blank := _blank(snapshot, statements)):
                    path.write_bytes(blank)
                    with _writing(path, store, snapshot) as con:
                        _fill(con, store, snapshot, digest)
                else:
                    path.unlink(missing_ok=True)
                    _build(path, store, snapshot, statements, digest)
            # A shell that opens the catalog without -readonly would lock every other reader out.
            store.replace(NAME, path.read_bytes(), is_read_only=True)
            if last is _Last.UNUSABLE:
                empty_files.delete_older(store)
            return True
    except (OSError, duckdb.Error) as error:
        raise LakeError(
            f"the catalog of {store.uri} cannot be written ({type(error).__name__}); make sure that the temporary "
            "folder has room, then run chatexport catalog",
            suspects=suspects(error) if isinstance(error, duckdb.Error) else None,
        ) from None


def _build(path: Path, store: LakeStore, snapshot: Snapshot, statements: Sequence[str], digest: str) -> None:
    with _writing(path, store, snapshot) as con:
        con.execute(f"CREATE SCHEMA {INTERNAL_SCHEMA}")
        _fill(con, store, snapshot, digest)
        con.execute("; ".join(statements))


def _blank(snapshot: Snapshot, statements: Sequence[str]) -> bytes | None:
    """Return the catalog of an empty lake, to be filled; None for the first new lake of a process.

    A process that creates many lakes, such as the tests of a DAG, spends half of the time of a small load on what
    people see. For most processes there is one lake, and building the blank would only be a detour.

    :param statements: the public ones of the snapshot.
    """
    key = "; ".join(statements)
    if key not in _BLANKS or snapshot.promoted_types:
        _BLANKS.setdefault(key)
        return None
    blank = _BLANKS[key]
    if blank is None:
        # An address of its own: free blocks of a copy may still have it.
        store = open_store(f"memory://{INTERNAL_SCHEMA}")
        with tempfile.TemporaryDirectory() as folder:
            _build(path := Path(folder) / NAME, store, Snapshot([]), statements, digest="")
            blank = _BLANKS[key] = path.read_bytes()
    return blank


@contextlib.contextmanager
def _writing(path: Path, store: LakeStore, snapshot: Snapshot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which the file is the database in use; write the file once, at the end."""
    with quiet(duckdb.connect()) as con:
        contents = {}
        if store.is_remote:
            contents = empty_files.contents(store) | stand_ins(store, snapshot)
        store.let_read(con, contents=contents)
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH {sql.quoted(str(path))} AS catalog (STORAGE_VERSION {sql.quoted(STORAGE_VERSION)})")
        con.execute("USE catalog")
        # Without a transaction, each of the hundreds of statements would write the file once.
        con.execute("BEGIN")
        yield con
        con.execute("COMMIT")
        con.execute("USE memory")
        con.execute("DETACH catalog")


class _Last(enum.Enum):
    """What the last catalog is good for."""

    MISSING = enum.auto()
    UNUSABLE = enum.auto()  # it cannot be brought up to date
    UPDATED = enum.auto()  # a copy of it was brought up to date
    SHOWS_THESE = enum.auto()  # it shows exactly the records in question
    SHOWS_MORE = enum.auto()  # it shows others, too


def _update_copy(path: Path, store: LakeStore, snapshot: Snapshot, digest: str) -> _Last:
    """Write a copy of the last catalog, brought up to date, unless it is up to date.

    This takes about 0.1 s, and building a catalog from nothing 0.25 s: of every load, and of an hourly load of a small
    window that is a tenth. The digest is what makes it safe. It is over the statements of all that people see and over
    DuckDB's version, so a catalog that another version of this package or of DuckDB built, or one whose views another
    promotion changed, is never taken over.
    """
    content = store.read_if_there(NAME)
    if content is None:
        return _Last.MISSING
    path.write_bytes(content)
    # Any fault of the last catalog leads to a new one. A fault of the lake shows there a second time.
    with contextlib.suppress(duckdb.Error), _writing(path, store, snapshot) as con:
        lake, last_digest, records = con.execute(f"SELECT lake, digest, records FROM {BUILT_FROM}").fetchall()[0]
        if (lake, last_digest) == (store.uri, digest):
            ids, shown = {record.load_id for record in snapshot.records}, frozenset(records)
            if ids <= shown and not snapshot.unreadable:
                return _Last.SHOWS_THESE if ids == shown else _Last.SHOWS_MORE
            if not shown <= ids:
                return _Last.UNUSABLE
            _update_loads(con, snapshot, shown)
            _fill(con, store, snapshot, digest, but=metadata_views.LOADS)
            return _Last.UPDATED
    return _Last.UNUSABLE


def _update_loads(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, shown: frozenset[str]) -> None:
    """Bring the rows of the view ``loads`` up to date: with 20,000 loads, this is a tenth of writing them all.

    :param shown: ids of the records that the last catalog shows. All of them are still there.
    """
    table = metadata_views.LOADS
    con.register("fates", metadata_views.load_fates(snapshot, shown))
    assigned = ", ".join(f"{name} = fates.{name}" for name in metadata_views.FATES)
    con.execute(f"UPDATE {table} rows SET {assigned} FROM fates WHERE rows.load_id = fates.load_id")
    con.unregister("fates")
    con.register("new_loads", metadata_views.load_rows(snapshot, shown))
    con.execute(f"INSERT INTO {table} BY NAME FROM new_loads")
    con.unregister("new_loads")


def _fill(
    con: duckdb.DuckDBPyConnection, store: LakeStore, snapshot: Snapshot, digest: str, *, but: str | None = None
) -> None:
    """Create or replace what changes from load to load, and the digest of what does not.

    :param but: a table that is up to date.
    """
    sets: metadata_views.Sets = {}
    for view in metadata_views.VIEWS:
        if (name := internal_name(view.name)) != but:
            _put(con, name, view.rows(snapshot, sets))
    _put(con, MASKING_ENTRIES, entry_rows(snapshot.masking_coverage, sets))
    recheck = snapshot.recheck_coverage
    _put(con, history_view.READABLE_ENTRIES, entry_rows(snapshot.readable_recheck_coverage, sets))
    _put(con, history_view.DECIDING_ENTRIES, entry_rows(recheck.intersection(snapshot.coverage), sets))
    _put(con, metadata_views.CHANNEL_SETS, set_rows(sets))
    _put(con, SIZES, _size_rows(store, snapshot))
    for table in snapshot.tables:
        _define(con, internal_name(table.name), visible_rows(store, table, snapshot))
        if table.name == MESSAGES.name:
            _define(con, history_view.VERSIONS, versions(store, table, snapshot))
    built_from = [store.uri, [record.load_id for record in snapshot.records], digest, SCHEMA_VERSION]
    con.execute(
        f"CREATE OR REPLACE TABLE {BUILT_FROM} AS SELECT $1 AS lake, $2::VARCHAR[] AS records, $3 AS digest, "
        "$4 AS schema_version",
        built_from,
    )


def _size_rows(store: LakeStore, snapshot: Snapshot) -> pa.Table:
    """Return the size of each file that the views read; nothing where asking for it costs nothing."""
    sizes = visibility.sizes_of(store, snapshot.readable_states) if store.is_remote else {}
    rows = ({"path": path, "size_bytes": size} for path, size in sizes.items())
    return arrow_rows(rows, pa.schema([("path", pa.string()), ("size_bytes", pa.int64())]))


def _put(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Create or replace a table of these rows."""
    con.register("new_rows", rows)
    con.execute(f"CREATE OR REPLACE TABLE {name} AS FROM new_rows")
    con.unregister("new_rows")


def _define(con: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    """Create or replace a table macro without parameters.

    A macro does not show among the views that people query, and creating one opens no file. Creating a view would read
    the footer of a data file for the view's columns.
    """
    con.execute(f"CREATE OR REPLACE MACRO {name}() AS TABLE {query}")


def _public_statements(snapshot: Snapshot) -> Iterator[str]:
    """Yield the statements that create what people see, over what ``_fill`` creates."""
    for view in metadata_views.VIEWS:
        yield f"CREATE VIEW {view.name} AS {view.query}"
        yield from _comments(view.name, view.doc, [(name, doc) for name, _, doc in view.columns])
    for table in snapshot.tables:
        yield f"CREATE VIEW {table.name} AS FROM {internal_name(table.name)}()"
        yield from _comments(table.name, table.doc, _docs(table))
        if table.name == MESSAGES.name:
            yield f"CREATE VIEW {history_view.NAME} AS {history_view.query(table)}"
            yield from _comments(history_view.NAME, history_view.DOC, [*history_view.COLUMNS, *_docs(table)])
    for macro in macros.MACROS:
        yield macro.create()
        yield f"COMMENT ON MACRO {'TABLE ' * macro.is_table}{macro.name} IS {sql.quoted(macro.doc)}"


def _comments(view: str, doc: str, columns: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f"COMMENT ON VIEW {view} IS {sql.quoted(doc)}"
    for name, column_doc in columns:
        yield f"COMMENT ON COLUMN {view}.{sql.name(name)} IS {sql.quoted(column_doc)}"


def _docs(table: Table) -> list[tuple[str, str]]:
    return [*((column.name, column.doc) for column in table), (table.date_column, table.date_doc)]


def _digest(store: LakeStore, statements: Sequence[str], snapshot: Snapshot) -> str:
    """Return a digest of what people see: the statements, the columns' types, and where the empty files are.

    The types are in no statement: a view stores them when it is created. Nor is the version of the schema, which is in
    the names of the tables' files without rows.
    """
    types = [f"{column.name} {column.kind.value}" for table in snapshot.tables for column in table]
    places = [empty_files.empty_file(store, table) for table in snapshot.tables]
    parts = [duckdb.__version__, f"schema {SCHEMA_VERSION}", *statements, *types, *places]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
