"""``catalog.duckdb``: the views that people query, made from the registry of tables and the records of loads.

Where no exports overlap, a view is a list of files. If a newer export may hide some rows of a file, the view reads that
file, and only that one, through the truth rule as a filter. A new catalog replaces the last one in one step: readers
who have the last one open go on reading the lake as it was when they opened it.

The catalog has two schemas. ``main`` holds what people see: views, their comments, and macros. It is the same after
every load. ``_internal`` holds what a load changes: the lists of files, the metadata rows, the coverage that hides
rows. So a load copies the last catalog and replaces ``_internal`` alone, which takes a fraction of the time that
some four hundred statements for views and comments take.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import re
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_provider_chatexport.errors import LakeError, MovedLakeError
from airflow_provider_chatexport.lake.catalog import history_view, macros, metadata_views
from airflow_provider_chatexport.lake.catalog.metadata_views import INTERNAL_SCHEMA, internal_name
from airflow_provider_chatexport.lake.catalog.stand_ins import stand_in, stand_ins
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING
from airflow_provider_chatexport.lake.commits.coverage_tables import entry_rows, per_channel, set_rows
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import quiet, suspects
from airflow_provider_chatexport.lake.parquet import write_empty
from airflow_provider_chatexport.lake.schema import promoted, sql
from airflow_provider_chatexport.lake.schema.arrow import arrow_rows
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, SCHEMA_VERSION, TABLES, USER_EXPORT_USERS
from airflow_provider_chatexport.lake.schema.types import Placement, Table
from airflow_provider_chatexport.lake.storage.store import EMPTY_FILE_PREFIX, LakeStore

NAME: Final = "catalog.duckdb"
# The oldest storage that DuckDB 2.0 writes and that DuckDB 1.2 reads.
STORAGE_VERSION: Final = "v1.2.0"
_EMPTY_FILE_DAY: Final = "1970-01-01"
_BUILT_FROM: Final = internal_name("built_from")
# How large each file is that a view reads: who reads it from an object store does not have to ask.
_SIZES: Final = internal_name("sizes")
_MASKING_ENTRIES: Final = internal_name("masking_coverage")
_MASKING: Final = f"({per_channel(_MASKING_ENTRIES, metadata_views.CHANNEL_SETS)})"


def is_lake(store: LakeStore) -> bool:
    """Return whether there is a lake at the address: a catalog, or at least one record.

    :raises LakeError: the place cannot be read.
    """
    return store.exists(NAME) or bool(commit_log.record_paths(store))


def require_lake(store: LakeStore) -> None:
    """Raise unless there is a lake at the address.

    :raises LakeError: there is no lake at the address, or the place cannot be read.
    """
    if not is_lake(store):
        raise LakeError(f"there is no lake at {store.uri}; give the address of one, or load something into it first")


def connect(store: LakeStore) -> duckdb.DuckDBPyConnection:
    """Connect to the catalog, read-only: its database is the one in use, and times are in UTC.

    The caller closes the connection.

    Its views name files by their whole address, because DuckDB takes a relative path from where its process runs. So
    the catalog of a lake that was copied or is mounted elsewhere would show the rows of the original, and is refused.

    :raises LakeError: there is no catalog, the file in its place is not one, a newer version made it, or it was made
        when the lake had another address.
    """
    if not store.exists(NAME):
        raise LakeError(f"the lake at {store.uri} has no catalog; run chatexport catalog")
    con = quiet(duckdb.connect())
    try:
        with tempfile.TemporaryDirectory() as folder:
            # DuckDB keeps a copy open, so it can be read after its name is gone.
            path = store.local_copy(NAME, Path(folder))
            # The names in a query are those of the catalog, and never those of variables in a Python frame.
            con.execute("SET python_enable_replacements = false; SET TimeZone = 'UTC'")
            try:
                _attach(con, str(path))
            except duckdb.Error as error:
                if not _is_in_use(error):
                    raise
                # A copy has no lock, and its blocks have checksums.
                copy = Path(folder) / f"unlocked-{NAME}"
                copy.write_bytes(store.read(NAME))
                _attach(con, str(copy))
            con.execute("USE lake")
            _check_origin(con, store)
            if store.is_remote:
                sizes = dict(con.sql(f"FROM {_SIZES}").fetchall()) if _has_sizes(con) else {}
                store.let_read(con, sizes, contents=_empty_files(store))
    except duckdb.Error as error:
        con.close()
        raise LakeError(
            f"the catalog of {store.uri} cannot be opened ({type(error).__name__}); run chatexport catalog"
        ) from None
    except BaseException:
        con.close()
        raise
    return con


def _attach(con: duckdb.DuckDBPyConnection, path: str) -> None:
    con.execute(f"ATTACH {sql.quoted(path)} AS lake (READ_ONLY)")


def _is_in_use(error: duckdb.Error) -> bool:
    """Return whether another connection may write the catalog: one of another process, or one of this process."""
    return "Could not set lock" in str(error) or type(error).__name__ == "ResourceInUseException"


def writer(store: LakeStore) -> str | None:
    """Return which process has opened the catalog to write it, as DuckDB names it; None if no process has.

    As long as it does, every other process is refused that opens the catalog with DuckDB; ``connect`` is not.

    :raises LakeError: there is no catalog.
    :raises duckdb.Error: the file in its place is not one.
    """
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        try:
            _attach(con, str(store.local_copy(NAME, Path(folder))))
        except duckdb.Error as error:
            if not _is_in_use(error):
                raise
            holder = re.search(r"lock is held in (.*?\(PID \d+\))", str(error))
            return holder.group(1) if holder else "a process"
    return None


def _empty_files(store: LakeStore) -> dict[str, bytes]:
    """Return the content of the tables' files without rows, by path."""
    return {empty_file(store, table): stand_in(table, SCHEMA_VERSION, frozenset()) for table in TABLES}


def _has_sizes(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the catalog in use says how large its files are. Older ones do not."""
    found = con.sql(f"SELECT 1 FROM duckdb_tables() WHERE schema_name || '.' || table_name = {sql.quoted(_SIZES)}")
    return bool(found.fetchall())


def _check_origin(con: duckdb.DuckDBPyConnection, store: LakeStore) -> None:
    """Raise unless the catalog in use was made for the lake where it lies now, by a version that is not newer.

    :raises LakeError: it was not.
    """
    built_from = con.sql(f"FROM {_BUILT_FROM}").to_arrow_table().to_pylist()[0]
    if store.has_moved_from(built_from["lake"]):
        raise MovedLakeError(
            f"the catalog of {store.uri} was made when the lake was at {built_from['lake']}, and would show the files "
            f"there; run chatexport catalog --lake {shlex.quote(store.uri)}"
        )
    version = built_from.get("schema_version", SCHEMA_VERSION)  # older catalogs do not say it
    if version > SCHEMA_VERSION:
        raise LakeError(
            f"a newer version made the catalog of {store.uri}: its tables are of version {version}, and this "
            f"installation knows version {SCHEMA_VERSION}; upgrade airflow-provider-chatexport where it reads the lake",
            retryable=False,
        )


def fault(store: LakeStore, snapshot: Snapshot) -> str | None:
    """Return what is wrong with the catalog, as a sentence; None if nothing is.

    :param snapshot: of records that were read before the catalog is: a newer catalog knows them, too.
    :raises MovedLakeError: it was made when the lake had another address.
    """
    cure = "run chatexport catalog"
    try:
        with contextlib.closing(connect(store)) as con:
            ((records,),) = con.execute(f"SELECT records FROM {_BUILT_FROM}").fetchall()
    except MovedLakeError:
        raise
    except LakeError as error:
        return error.message
    except duckdb.Error:
        return f"the catalog of {store.uri} is damaged or of another version; {cure}"
    if missing := {record.load_id for record in snapshot.records} - set(records):
        return f"the catalog of {store.uri} does not know {len(missing)} of the records; {cure}"
    return None


def records_shown(store: LakeStore) -> set[str]:
    """Return the ids of the records that the catalog knows; none if there is no catalog that can be read."""
    with contextlib.suppress(LakeError, duckdb.Error), contextlib.closing(connect(store)) as con:
        return {load_id for (load_id,) in con.execute(f"SELECT unnest(records) FROM {_BUILT_FROM}").fetchall()}
    return set()


def coverage_shown(store: LakeStore, load_ids: Sequence[str]) -> list[tuple[str, datetime, datetime]]:
    """Return channels and spans that some loads cover, as the catalog has them; none if it cannot be read."""
    chosen = ", ".join(map(sql.quoted, load_ids))
    with contextlib.suppress(LakeError, duckdb.Error), contextlib.closing(connect(store)) as con:
        rows = con.sql(f"SELECT cid, since, until FROM coverage WHERE load_id IN ({chosen})").to_arrow_table()
        return [(row["cid"], row["since"] or BEGINNING, row["until"]) for row in rows.to_pylist()]
    return []


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
                path.unlink(missing_ok=True)
                write_empty_files(store, check=full)
                with _writing(path, store, snapshot) as con:
                    con.execute(f"CREATE SCHEMA {INTERNAL_SCHEMA}")
                    _fill(con, store, snapshot, digest)
                    con.execute("; ".join(statements))
            # A shell that opens the catalog without -readonly would lock every other reader out.
            store.replace(NAME, path.read_bytes(), is_read_only=True)
            if last is _Last.UNUSABLE:
                _delete_older_empty_files(store)
            return True
    except (OSError, duckdb.Error) as error:
        raise LakeError(
            f"the catalog of {store.uri} cannot be written ({type(error).__name__}); make sure that the temporary "
            "folder has room, then run chatexport catalog",
            suspects=suspects(error) if isinstance(error, duckdb.Error) else None,
        ) from None


def empty_file(store: LakeStore, table: Table) -> str:
    """Return the path of the table's file without rows, which lets people query an empty lake."""
    return store.empty_file(table.folder_of(_EMPTY_FILE_DAY), f"{EMPTY_FILE_PREFIX}{SCHEMA_VERSION}")


def write_empty_files(store: LakeStore, *, check: bool = False) -> bool:
    """Write the tables' files without rows, where they are missing, and return whether one was.

    :param check: write also those that are damaged.
    :raises LakeError: the lake cannot be written.
    """
    missing = [
        table
        for table in TABLES
        if not store.exists(path := empty_file(store, table)) or (check and not _is_parquet(store.read(path)))
    ]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            for table in missing:
                local = Path(folder) / f"{table.name}.parquet"
                write_empty(table, local)
                store.publish(local, empty_file(store, table))
                # Of two keys in the names of folders, DuckDB can make no column of a glob.
                if table.folder_key != table.date_column and not store.is_remote:
                    store.delete(path for path, _ in store.walk(_old_folder(table), ".parquet"))
    return bool(missing)


def _delete_older_empty_files(store: LakeStore) -> None:
    """Delete the files without rows of older versions, which the last catalog read: their columns have other types."""
    for table in TABLES:
        current = empty_file(store, table)
        folder, _, _ = current.rpartition("/")
        files = store.list_folder(folder, PurePosixPath(current).suffix)
        store.delete(path for path in files if path != current and path.startswith(f"{folder}/{EMPTY_FILE_PREFIX}"))


def _old_folder(table: Table) -> str:
    """Return the folder that had the empty file of an event table when its folders were days."""
    return f"{table.name}/{table.date_column}={_EMPTY_FILE_DAY}"


def _is_parquet(content: bytes) -> bool:
    try:
        return bool(pq.read_metadata(pa.BufferReader(content)))
    except pa.ArrowException:
        return False


@contextlib.contextmanager
def _writing(path: Path, store: LakeStore, snapshot: Snapshot) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which the file is the database in use; write the file once, at the end."""
    with quiet(duckdb.connect()) as con:
        contents = {}
        if store.is_remote:
            contents = _empty_files(store) | stand_ins(store, snapshot)
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
        lake, last_digest, records = con.execute(f"SELECT lake, digest, records FROM {_BUILT_FROM}").fetchall()[0]
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
    _put(con, _MASKING_ENTRIES, entry_rows(snapshot.masking_coverage, sets))
    recheck = snapshot.recheck_coverage
    _put(con, history_view.READABLE_ENTRIES, entry_rows(snapshot.readable_recheck_coverage, sets))
    _put(con, history_view.DECIDING_ENTRIES, entry_rows(recheck.intersection(snapshot.coverage), sets))
    _put(con, metadata_views.CHANNEL_SETS, set_rows(sets))
    _put(con, _SIZES, _size_rows(store, snapshot))
    for table in snapshot.tables:
        _define(con, internal_name(table.name), _visible_rows(store, table, snapshot))
        if table.name == MESSAGES.name:
            _define(con, history_view.VERSIONS, _versions(store, table, snapshot))
    built_from = [store.uri, [record.load_id for record in snapshot.records], digest, SCHEMA_VERSION]
    con.execute(
        f"CREATE OR REPLACE TABLE {_BUILT_FROM} AS SELECT $1 AS lake, $2::VARCHAR[] AS records, $3 AS digest, "
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


def _digest(store: LakeStore, statements: Sequence[str], snapshot: Snapshot) -> str:
    """Return a digest of what people see: the statements, the columns' types, and where the empty files are.

    The types are in no statement: a view stores them when it is created. Nor is the version of the schema, which is in
    the names of the tables' files without rows.
    """
    types = [f"{column.name} {column.kind.value}" for table in snapshot.tables for column in table]
    empty_files = [empty_file(store, table) for table in snapshot.tables]
    parts = [duckdb.__version__, f"schema {SCHEMA_VERSION}", *statements, *types, *empty_files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _visible_rows(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    """Return the query over a table's live files that leaves out what newer exports hide."""
    live = list(snapshot.live_files_of(table))
    if table.placement is Placement.EVENT:
        return _visible_events(store, table, live)
    parts = _read(store, table, live)
    newest = visibility.newest(table, _owners(store, snapshot) if table.owned_by else None)
    if newest and len(parts) > 1:
        return f"SELECT * FROM ({' UNION ALL '.join(parts)}) rows{newest}"
    return " UNION ALL ".join(parts) + newest


def _visible_events(store: LakeStore, table: Table, live: Sequence[FileState]) -> str:
    contested = [each for each in live if each.is_contested]
    parts = _read_unmasked(store, table, [each for each in live if not each.is_contested])
    if newest := visibility.newest_of_loose_keys(store, table, contested, _MASKING):
        rows = " UNION ALL ".join(_read_unmasked(store, table, contested))
        parts.append(visibility.unless_outdated(table, rows, f"({newest})"))
    return " UNION ALL ".join(parts or _read(store, table, []))


def _read_unmasked(store: LakeStore, table: Table, files: Sequence[FileState]) -> list[str]:
    """Return queries for the rows of an event table's files that coverage does not hide."""
    return [
        part + condition
        for of_kind, condition in visibility.by_mask(table, files, _MASKING)
        for part in _read(store, table, of_kind)
    ]


def _owners(store: LakeStore, snapshot: Snapshot) -> str:
    users = USER_EXPORT_USERS
    return _scan(store, users, list(snapshot.live_files_of(users)))


def _versions(store: LakeStore, table: Table, snapshot: Snapshot) -> str:
    """Return the query over all rows of messages that can be read, whether newer exports hide them or not."""
    readable = snapshot.readable_files_of(table)
    rows = " UNION ALL ".join(_read(store, table, readable))
    if all(each.is_live for each in readable):
        return rows
    # A rewrite may have put one row both into a live file and into a file of history.
    return f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY id, _exported_at, _load_id) = 1"


def _read(store: LakeStore, table: Table, files: Sequence[FileState]) -> list[str]:
    """Return a query for each group of files that hold the same promoted columns; for no files, one without rows."""
    groups: dict[frozenset[str], list[FileState]] = defaultdict(list)
    for each in files:
        groups[promoted.held_by(table, each.file.promoted)].append(each)
    return [
        f"SELECT {visibility.columns(table, held)} FROM {_scan(store, table, of_group)} rows"
        for held, of_group in (groups or {frozenset[str](): []}).items()
    ]


def _docs(table: Table) -> list[tuple[str, str]]:
    return [*((column.name, column.doc) for column in table), (table.date_column, table.date_doc)]


def _scan(store: LakeStore, table: Table, files: Sequence[FileState]) -> str:
    """Return the relation over these files; over the table's empty file if there are none."""
    if not files:
        return visibility.scan(table, [store.url(empty_file(store, table))])
    return visibility.scan_files(store, table, files)
