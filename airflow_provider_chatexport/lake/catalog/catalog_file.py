"""``catalog.duckdb`` as its readers find it: opening it, and checking what it shows.

``catalog_writer`` writes it. Both know the tables that the catalog holds about itself.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb

from airflow_provider_chatexport.errors import LakeError, MovedLakeError
from airflow_provider_chatexport.lake.catalog import empty_files
from airflow_provider_chatexport.lake.catalog.metadata_views import internal_name
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.duckdb_session import quiet
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import SCHEMA_VERSION
from airflow_provider_chatexport.lake.storage.store import LakeStore

NAME: Final = "catalog.duckdb"
# For which lake and from which records the catalog was made.
BUILT_FROM: Final = internal_name("built_from")
# How large each file is that a view reads: who reads it from an object store does not have to ask.
SIZES: Final = internal_name("sizes")


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
                sizes = dict(con.sql(f"FROM {SIZES}").fetchall()) if _has_sizes(con) else {}
                store.let_read(con, sizes, contents=empty_files.contents(store))
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


def _has_sizes(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the catalog in use says how large its files are. Older ones do not."""
    found = con.sql(f"SELECT 1 FROM duckdb_tables() WHERE schema_name || '.' || table_name = {sql.quoted(SIZES)}")
    return bool(found.fetchall())


def _check_origin(con: duckdb.DuckDBPyConnection, store: LakeStore) -> None:
    """Raise unless the catalog in use was made for the lake where it lies now, by a version that is not newer.

    :raises LakeError: it was not.
    """
    built_from = con.sql(f"FROM {BUILT_FROM}").to_arrow_table().to_pylist()[0]
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
            ((records,),) = con.execute(f"SELECT records FROM {BUILT_FROM}").fetchall()
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
        return {load_id for (load_id,) in con.execute(f"SELECT unnest(records) FROM {BUILT_FROM}").fetchall()}
    return set()


def coverage_shown(store: LakeStore, load_ids: Sequence[str]) -> list[tuple[str, datetime, datetime]]:
    """Return channels and spans that some loads cover, as the catalog has them; none if it cannot be read."""
    chosen = ", ".join(map(sql.quoted, load_ids))
    with contextlib.suppress(LakeError, duckdb.Error), contextlib.closing(connect(store)) as con:
        rows = con.sql(f"SELECT cid, since, until FROM coverage WHERE load_id IN ({chosen})").to_arrow_table()
        return [(row["cid"], row["since"] or BEGINNING, row["until"]) for row in rows.to_pylist()]
    return []
