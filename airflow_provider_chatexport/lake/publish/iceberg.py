"""The Iceberg tables of a lake, in a catalog of any kind that pyiceberg knows.

A change of a table is one Iceberg transaction: it adds columns and files, and removes files. It holds only if the table
is still as it was when it was opened; after a conflict the caller reads everything again.

::

    LAKE/_iceberg/catalog.sqlite                the catalog, unless another one is named
    LAKE/_iceberg/<table>/metadata/             snapshots and lists of files, unless the catalog has a place for them
    LAKE/_iceberg/<table>/metadata/version-hint.text    the newest one, for readers without the catalog
    LAKE/_files/<table>/...                     the data files. They belong to the lake: Iceberg deletes none
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import CallError, ChatExportError, LakeError
from airflow_provider_chatexport.lake.commits.log import DEFAULT_KEEP
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError
from airflow_provider_chatexport.lake.publish.plan import APP_ID, Change, TableState
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

try:
    from pyiceberg import exceptions as iceberg_errors
    from pyiceberg.catalog.rest import RestCatalog
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.manifest import DataFile as IcebergFile
    from pyiceberg.manifest import ManifestContent
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table import Transaction
    from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot

    from airflow_provider_chatexport.lake.publish.iceberg_catalogs import (
        CATALOG_FILE,
        FOLDER,
        REFUSALS,
        catalog_in,
        configured,
        is_conflict,
    )
    from airflow_provider_chatexport.lake.publish.iceberg_schema import (
        NAME_MAPPING,
        columns_of,
        listed_file,
        new_column_type,
        partitions_of,
        schema_of,
    )
except ImportError:
    raise CallError(
        "publishing as Iceberg needs pyiceberg; run pip install 'airflow-provider-chatexport[iceberg]'"
    ) from None

NAMESPACE: Final = "chatexport"
# The lake whose files a table lists, and the lake's version that a snapshot shows.
_LAKE: Final = f"{APP_ID}.lake"
_VERSION: Final = f"{APP_ID}.version"
# A snapshot with more lists of files than this has them merged.
MAX_MANIFESTS: Final = 20
# So many snapshots of a table are kept, also of a lake that is published more often than that in a day: each of them
# costs a reader and a publisher some time.
MAX_SNAPSHOTS: Final = 30
# A publisher needs its lists of files no longer than this before it commits them.
ABANDONED_AFTER: Final = timedelta(days=1)
_PROPERTIES: Final = {
    "format-version": "2",
    # After a conflict, only a new difference between table and lake is right.
    "commit.retry.num-retries": "0",
    # The data files belong to the lake: no engine may delete them when it expires snapshots or drops the table.
    "gc.enabled": "false",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "2",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}


class IcebergFormat:
    """The Iceberg tables of a lake, in one catalog.

    :param catalog: a name in pyiceberg's configuration; None for the catalog in the lake.
    :param keep: how long snapshots stay that are not the current one. The lake keeps their files no longer, either.
    :param most_snapshots: how many stay at most, the current one included.
    :raises CallError: pyiceberg knows no such catalog, or the lake cannot have one of its own.
    :raises LakeError: the catalog cannot be reached.
    """

    kind = Sink.ICEBERG

    def __init__(
        self,
        store: LakeStore,
        catalog: str | None = None,
        *,
        keep: timedelta = DEFAULT_KEEP,
        most_snapshots: int = MAX_SNAPSHOTS,
    ) -> None:
        is_local = isinstance(store, LocalStore)
        if "#" in store.uri and not is_local:
            raise CallError(
                f"the lake at {store.uri} cannot be published to Iceberg, because pyiceberg does not read addresses "
                "with a #; use a lake at another address"
            )
        self.store = store
        self.keep = keep
        self.most_snapshots = most_snapshots
        self.name = f"the Iceberg catalog {catalog or store.url(CATALOG_FILE)}"
        # Iceberg wants addresses with a scheme; but with one, pyiceberg does not read local addresses with a #.
        self._prefix = "file://" if is_local and "#" not in store.uri else ""
        self._is_in_lake = catalog is None
        with self.errors():
            self._catalog = catalog_in(store) if catalog is None else configured(catalog, store)
            self._catalog.create_namespace_if_not_exists(NAMESPACE)

    def where(self, table: Table) -> str:
        """Return the table's name in the catalog."""
        return f"{NAMESPACE}.{table.name}"

    def open(self, table: Table) -> OpenTable:
        """Open a table as it is now, or as one that does not exist yet.

        :raises CallError: the table is not of this lake.
        :raises LakeError: the catalog or the table cannot be read.
        """
        with self.errors():
            found = self._find(table)
        if found is not None and found.properties.get(_LAKE) != self.store.uri:
            if not self._is_in_lake:
                raise CallError(
                    f"{self.name} has a table {self.where(table)} that is not of the lake at {self.store.uri}; name "
                    "another catalog, or drop that table"
                )
            found = None  # the lake was copied, and the table lists the files of the other one
        return OpenTable(self, found)

    def create(self, table: Table) -> IcebergTable:
        """Create a table without files, in place of one whose files are not of this lake any more."""
        with contextlib.suppress(iceberg_errors.NoSuchTableError):
            if self._is_in_lake:
                self._catalog.drop_table((NAMESPACE, table.name))
        schema = schema_of(table)
        has_place = isinstance(self._catalog, RestCatalog) or "warehouse" in self._catalog.properties
        return self._catalog.create_table(
            (NAMESPACE, table.name),
            schema,
            location=None if has_place else self.address(f"{FOLDER}/{table.name}"),
            partition_spec=partitions_of(table, schema),
            properties={**_PROPERTIES, _LAKE: self.store.uri, "comment": table.doc},
        )

    def address(self, path: str) -> str:
        """Return the address of an object of the lake, as Iceberg writes it."""
        return f"{self._prefix}{self.store.url(path)}"

    def path(self, address: str) -> str:
        """Return the path of an object, relative to the lake; of an object elsewhere the address."""
        return address.removeprefix(self.address(""))

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what pyiceberg and the libraries below it raise as errors of this package."""
        try:
            yield
        except ChatExportError:
            raise
        except Exception as error:  # noqa: BLE001 - each kind of catalog has libraries with error trees of their own
            if is_conflict(error):
                raise PublishConflictError(f"{self.name} was changed by another process; publish again") from None
            if isinstance(error, REFUSALS):
                message = f"{self.name} refuses the credentials; check them in pyiceberg's configuration"
                raise LakeError(message, retryable=False) from None
            raise LakeError(
                f"{self.name} cannot be read or written ({type(error).__name__}); check that it can be reached, and "
                "what pyiceberg's configuration says of it"
            ) from None

    def _find(self, table: Table) -> IcebergTable | None:
        try:
            return self._catalog.load_table((NAMESPACE, table.name))
        except iceberg_errors.NoSuchTableError:
            return None
        except FileNotFoundError:
            if self._is_in_lake:
                return None  # the lake was moved, and what the table was is at the other address
            raise


class OpenTable:
    """An Iceberg table as it was when it was opened; without ``table``, one that does not exist yet."""

    def __init__(self, form: IcebergFormat, table: IcebergTable | None) -> None:
        self._form = form
        self._table = table
        self._listed: dict[str, IcebergFile] = {}
        self._n_manifests = 0
        if table is not None:
            self._write_hint(table)

    def state(self) -> TableState | None:
        """Return what the table has; None if there is no table.

        :raises LakeError: it cannot be read.
        """
        if self._table is None:
            return None
        snapshot = self._table.current_snapshot()
        if snapshot is not None:
            with self._form.errors():
                self._read_files(self._table, snapshot)
        version = snapshot.summary.get(_VERSION) if snapshot is not None and snapshot.summary is not None else None
        return TableState(
            files=frozenset(self._listed),
            columns=frozenset(field.name for field in self._table.schema().fields),
            version=None if version is None else int(version),
        )

    def commit(self, change: Change) -> None:
        """Make a change in one transaction, after ``state``.

        :raises PublishConflictError: another process was first, and nothing was changed.
        :raises LakeError: the table cannot be written.
        """
        with self._form.errors():
            table = self._table = self._form.create(change.table) if self._table is None else self._table
            with table.transaction() as transaction:
                _add_columns(transaction, change.table)
                self._exchange(transaction, change)
            self._write_hint(table)
        # If another publisher was first at this, it did the same.
        with contextlib.suppress(PublishConflictError):
            self.expire(datetime.now(UTC) - self._form.keep, most=self._form.most_snapshots)

    def _exchange(self, transaction: Transaction, change: Change) -> None:
        schema, spec = transaction.table_metadata.schema(), transaction.table_metadata.spec()
        properties = {_VERSION: str(change.version)}
        with transaction.update_snapshot(snapshot_properties=properties).overwrite() as snapshot:
            if spec.is_unpartitioned():
                # pyiceberg looks for removed files by their partitions, and without any only by a predicate.
                snapshot.delete_by_predicate(AlwaysTrue())
            for path in change.remove:
                snapshot.delete_data_file(self._listed[path])
            for each in change.add:
                address = self._form.address(each.path)
                snapshot.append_data_file(listed_file(change.table, each.file, address, schema, spec))
        # Each exchange adds two lists of files, and readers open all of them. An append without files merges them.
        if self._n_manifests + 2 > MAX_MANIFESTS:
            with transaction.update_snapshot(snapshot_properties=properties).merge_append():
                pass

    def _read_files(self, table: IcebergTable, snapshot: IcebergSnapshot) -> None:
        manifests = snapshot.manifests(table.io)
        if any(each.content is ManifestContent.DELETES for each in manifests):
            raise LakeError(
                f"another engine has deleted rows of {'.'.join(table.name())} in {self._form.name}; drop that table, "
                "then publish again",
                retryable=False,
            )
        self._n_manifests = len(manifests)
        self._listed = {
            self._form.path(entry.data_file.file_path): entry.data_file
            for manifest in manifests
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
        }

    def drop_history(self) -> None:
        """Remove all snapshots but the current one, and those that a branch or a tag names, with their lists of files.

        :raises PublishConflictError: another process was first, and nothing was changed.
        :raises LakeError: the table cannot be written.
        """
        self.expire()
        if self._table is not None:
            self._sweep(self._table, datetime.now(UTC) - ABANDONED_AFTER)

    def _sweep(self, table: IcebergTable, before: datetime) -> None:
        """Delete lists of files in the lake that no snapshot has: a publisher died, or the lake was moved.

        :param before: only those that are older, because publishers at work have not committed theirs; aware.
        """
        folder = self._form.path(table.metadata_location).rpartition("/")[0]
        if folder.startswith(f"{FOLDER}/"):
            with self._form.errors():
                needed = {self._form.path(each) for each in _metadata_of(table, table.metadata.snapshots)}
            there = self._form.store.walk(folder, ".avro")
            self._form.store.delete(path for path, at in list(there) if at < before and path not in needed)

    def expire(self, before: datetime | None = None, *, most: int = 1) -> int:
        """Remove snapshots but the current one, and their lists of files. Return how many snapshots were removed.

        A snapshot that a branch or a tag names stays.

        :param before: snapshots that are older; aware. None for all.
        :param most: of newer ones, how many stay.
        :raises PublishConflictError: another process was first, and nothing was changed.
        :raises LakeError: the table cannot be written.
        """
        table = self._table
        if table is None:
            return 0
        named = {ref.snapshot_id for ref in table.metadata.refs.values()}
        newest_first = sorted(table.metadata.snapshots, key=lambda each: each.timestamp_ms, reverse=True)
        expired = [
            each
            for number, each in enumerate(newest_first)
            if each.snapshot_id not in named
            and (before is None or number >= most or each.timestamp_ms < before.timestamp() * 1000)
        ]
        if not expired:
            return 0
        with self._form.errors():
            unneeded = _metadata_of(table, expired)
            table.maintenance.expire_snapshots().by_ids([each.snapshot_id for each in expired]).commit()
            self._table = table = table.refresh()
            kept = table.metadata.snapshots
            for address in unneeded - _metadata_of(table, _first_of_chain(expired, kept) or kept):
                table.io.delete(address)
            self._write_hint(table)
        return len(expired)

    def _write_hint(self, table: IcebergTable) -> None:
        """Write which metadata is the newest next to it, if it lies in the lake: DuckDB then needs no catalog."""
        folder, _, name = self._form.path(table.metadata_location).rpartition("/")
        if not folder.startswith(f"{FOLDER}/"):
            return
        hint = name.removesuffix(".metadata.json").encode()
        path = f"{folder}/version-hint.text"
        if self._form.store.read_if_there(path) != hint:
            self._form.store.replace(path, hint)


def _metadata_of(table: IcebergTable, snapshots: Sequence[IcebergSnapshot]) -> set[str]:
    """Return the addresses of the snapshots' lists of files, and of the lists of those lists."""
    found: set[str] = set()
    for each in snapshots:
        found.add(each.manifest_list)
        found |= {manifest.manifest_path for manifest in each.manifests(table.io)}
    return found


def _first_of_chain(expired: Sequence[IcebergSnapshot], kept: Sequence[IcebergSnapshot]) -> list[IcebergSnapshot]:
    """Return the snapshot after all that expired, if each is the parent of the next one; none if they are not a chain.

    A list of files that a snapshot no longer has does not come back in a later one. So this one has all that any of the
    kept ones shares with those that expired, and the others need not be read.
    """
    ordered = sorted([*expired, *kept], key=lambda each: each.sequence_number or 0)
    is_chain = all(after.parent_snapshot_id == before.snapshot_id for before, after in pairwise(ordered))
    ids = {each.snapshot_id for each in expired}
    are_first = all(each.snapshot_id in ids for each in ordered[: len(expired)])
    return ordered[len(expired) : len(expired) + 1] if is_chain and are_first else []


def _add_columns(transaction: Transaction, table: Table) -> None:
    """Add the columns that the table lacks, and make sure that it has names for its columns in the files."""
    names = {field.name for field in transaction.table_metadata.schema().fields}
    missing = [(name, kind, doc) for name, kind, doc in columns_of(table) if name not in names]
    if missing:
        with transaction.update_schema() as update:
            for name, kind, doc in missing:
                update.add_column(name, new_column_type(kind), doc)
    mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
    if transaction.table_metadata.properties.get(NAME_MAPPING) != mapping:
        transaction.set_properties({NAME_MAPPING: mapping})
