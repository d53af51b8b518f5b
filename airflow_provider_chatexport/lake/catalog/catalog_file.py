"""``catalog.duckdb``: the views that people query, made from the registry and the records of loads.

Where nothing overlaps, a view is a plain list of files. Files of which a newer export hides some rows are read with
the truth rule as a filter, and only those. The catalog is replaced at once: whoever has it open goes on reading the
lake as it was when they opened it.

What people see is the same after every load: views, what they say of themselves, and macros. What a load changes is in
a schema of its own beneath them, so that a copy of the last catalog is brought up to date in a fraction of the time
that it takes to say all of that anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.catalog import history_view, macros, metadata_views
from airflow_provider_chatexport.lake.catalog.folders import ANCHOR_PREFIX
from airflow_provider_chatexport.lake.catalog.metadata_views import INTERNAL_SCHEMA, internal_name
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.snapshot import FileState, FileStatus, Snapshot
from airflow_provider_chatexport.lake.commits.visibility import coverage_rows
from airflow_provider_chatexport.lake.parquet import write_empty
from airflow_provider_chatexport.lake.schema import promoted, sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, SCHEMA_VERSION, TABLES, USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import PARTITION_DOC, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

NAME: Final = "catalog.duckdb"
# The oldest storage that DuckDB 2.0 writes and that DuckDB 1.2 reads.
STORAGE_VERSION: Final = "v1.2.0"
ANCHOR_DAY: Final = "1970-01-01"
_MADE_OF: Final = internal_name("made_of")
_HIDING: Final = internal_name("hiding")


def require_lake(store: LakeStore) -> None:
    """:raises LakeError: there is no lake at the address."""
    if not store.exists(NAME) and not commit_log.names(store):
        raise LakeError(f"there is no lake at {store.uri}; give the address of one, or load something into it first")


@contextlib.contextmanager
def opened(store: LakeStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which the catalog is the database in use.

    :raises LakeError: there is no catalog, or what is there is none.
    """
    if not store.exists(NAME):
        raise LakeError(f"the lake at {store.uri} has no catalog; run chatexport catalog")
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        path = str(store.local_copy(NAME, Path(folder)))
        store.let_read(con)
        try:
            con.execute(f"SET TimeZone = 'UTC'; ATTACH {sql.quoted(path)} AS lake (READ_ONLY); USE lake")
        except duckdb.Error as error:
            raise LakeError(
                f"the catalog of {store.uri} cannot be opened ({type(error).__name__}); run chatexport catalog"
            ) from None
        yield con


def fault(store: LakeStore, snapshot: Snapshot) -> str | None:
    """What is wrong with the catalog, seen from records that were read before it; None for nothing."""
    cure = "run chatexport catalog"
    try:
        with opened(store) as con:
            lake, made_of = con.execute(f"SELECT lake, records FROM {_MADE_OF}").fetchall()[0]
    except LakeError as error:
        return error.message
    except duckdb.Error:
        return f"the catalog of {store.uri} is damaged or of another version; {cure}"
    if missing := {record.load_id for record in snapshot.records} - set(made_of):
        return f"the catalog of {store.uri} does not know {len(missing)} of the records; {cure}"
    if store.has_moved_from(lake):
        return f"the catalog of {store.uri} was made when the lake was at {lake}; {cure}"
    return None


def publish(store: LakeStore, snapshot: Snapshot, *, anew: bool = False) -> None:
    """Brings the catalog up to what the records say.

    :param anew: from nothing, whatever the last one is like.
    :raises LakeError: the lake cannot be read or written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / NAME
            told = [*_told(snapshot)]
            digest = _digest(told, snapshot)
            if anew or not _brought_up(path, store, snapshot, digest):
                path.unlink(missing_ok=True)
                with _writing(path, store) as con:
                    con.execute(f"CREATE SCHEMA {INTERNAL_SCHEMA}")
                    _fill(con, store, snapshot, digest)
                    con.execute("; ".join(told))
            store.replace(NAME, path.read_bytes())
    except (OSError, duckdb.Error) as error:
        raise LakeError(
            f"the catalog of {store.uri} cannot be made ({type(error).__name__}); run chatexport verify, which tells "
            "whether a file is missing, make sure that the temporary folder has room, then run chatexport catalog"
        ) from None


def empty_file(table: Table) -> str:
    """The path of the table's file without rows, which lets an empty lake be queried."""
    return f"{table.name}/{table.partition}={ANCHOR_DAY}/{ANCHOR_PREFIX}{SCHEMA_VERSION}.parquet"


def write_empty_files(store: LakeStore) -> None:
    """Puts the tables' files without rows in place.

    :raises LakeError: the lake cannot be written.
    """
    missing = [table for table in TABLES if not store.exists(empty_file(table))]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            for table in missing:
                local = Path(folder) / f"{table.name}.parquet"
                write_empty(table, local)
                store.publish(local, empty_file(table))


@contextlib.contextmanager
def _writing(path: Path, store: LakeStore) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which the file is the database in use, written as a whole at the end."""
    with duckdb.connect() as con:
        store.let_read(con)
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH {sql.quoted(str(path))} AS catalog (STORAGE_VERSION {sql.quoted(STORAGE_VERSION)})")
        con.execute("USE catalog")
        # Of the hundreds of statements each would write the file once more.
        con.execute("BEGIN")
        yield con
        con.execute("COMMIT")
        con.execute("USE memory")
        con.execute("DETACH catalog")


def _brought_up(path: Path, store: LakeStore, snapshot: Snapshot, digest: str) -> bool:
    """Whether there is a catalog that tells people the same, of which the file is now a copy, up to date."""
    if not store.exists(NAME):
        return False
    path.write_bytes(store.read(NAME))
    # Whatever is the matter with it, it will be made anew, where a fault of the lake shows once more.
    with contextlib.suppress(duckdb.Error), _writing(path, store) as con:
        if con.execute(f"SELECT digest FROM {_MADE_OF}").fetchall() == [(digest,)]:
            _fill(con, store, snapshot, digest)
            return True
    return False


def _fill(con: duckdb.DuckDBPyConnection, store: LakeStore, snapshot: Snapshot, digest: str) -> None:
    """What changes from load to load, and the digest of what does not."""
    for view in metadata_views.VIEWS:
        _put(con, internal_name(view.name), view.rows(snapshot))
    _put(con, _HIDING, coverage_rows(snapshot.masking_coverage))
    _put(con, history_view.READABLE, coverage_rows(snapshot.recheck_coverage & snapshot.readable))
    _put(con, history_view.DECIDING, coverage_rows(snapshot.recheck_coverage.intersection(snapshot.coverage)))
    for table in snapshot.tables:
        _define(con, internal_name(table.name), _view(store, table, snapshot))
        if table.name == MESSAGES.name:
            _define(con, history_view.VERSIONS, _versions(store, table, snapshot))
    made_of = [store.uri, [record.load_id for record in snapshot.records], digest]
    con.execute(
        f"CREATE OR REPLACE TABLE {_MADE_OF} AS SELECT $1 AS lake, $2::VARCHAR[] AS records, $3 AS digest", made_of
    )


def _put(con: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    con.register("rows_of_it", rows)
    con.execute(f"CREATE OR REPLACE TABLE {name} AS FROM rows_of_it")
    con.unregister("rows_of_it")


def _define(con: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    # A macro, which unlike a view is not listed among what people query, and opens no file when it is made.
    con.execute(f"CREATE OR REPLACE MACRO {name}() AS TABLE {query}")


def _told(snapshot: Snapshot) -> Iterator[str]:
    """Statements that make what people see, over what ``_fill`` makes."""
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


def _digest(told: Sequence[str], snapshot: Snapshot) -> str:
    """Of what people see, the types of columns as well, which a view has from when it was made."""
    kinds = [f"{column.name} {column.kind.value}" for table in snapshot.tables for column in table]
    return hashlib.sha256("\n".join([duckdb.__version__, *told, *kinds]).encode()).hexdigest()


def _view(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    hidden = f" WHERE NOT {visibility.hidden(table, _HIDING)}"
    parts = [
        part + hidden * (status is FileStatus.PARTLY_HIDDEN)
        for status, part in _read(store, table, list(snapshot.live(table)))
    ]
    newest = visibility.newest(table, _owners(store, snapshot) if table.owned_by else None)
    if newest and len(parts) > 1:
        return f"SELECT * FROM ({' UNION ALL '.join(parts)}) rows{newest}"
    return " UNION ALL ".join(parts) + newest


def _owners(store: LakeStore, snapshot: Snapshot) -> str:
    users = USER_EXPORT_USERS
    return _scan(store, users, [visibility.path_in(store, each) for each in snapshot.live(users)])


def _versions(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    """All rows of messages that can be read, by the truth rule or not."""
    readable = [each for each in snapshot.of(table) if each.is_readable]
    rows = " UNION ALL ".join(part for _, part in _read(store, table, readable))
    if all(each.is_live for each in readable):
        return rows
    # What was rewritten may be live and history.
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY id, _exported_at, _load_id) = 1"


def _read(store: LakeStore, table: Table, files: Sequence[FileState]) -> list[tuple[FileStatus, str]]:
    """Queries over files, of a kind each: of one status, and with the same promoted columns in them."""
    groups: dict[tuple[FileStatus, frozenset[str]], list[str]] = defaultdict(list)
    for each in files:
        groups[each.status, promoted.held_by(table, each.file.promoted)].append(visibility.path_in(store, each))
    return [
        (status, f"SELECT {visibility.columns(table, held)} FROM {_scan(store, table, paths)} rows")
        for (status, held), paths in (groups or {(FileStatus.WHOLE, frozenset[str]()): []}).items()
    ]


def _docs(table: Table) -> list[tuple[str, str]]:
    return [*((column.name, column.doc) for column in table), (table.partition, PARTITION_DOC)]


def _scan(store: LakeStore, table: Table, paths: Sequence[str]) -> str:
    return visibility.scan(table, [store.url(path) for path in paths or [empty_file(table)]])
