"""Delta tables over the lake's data files: ``LAKE/_files/<table>`` with a ``_delta_log``.

A Delta log names files relative to the root of its table, and most readers read no others. So the root is the folder in
which the lake's data files lie anyway. What a commit says of a file (its size, rows, and the bounds of its time and
channel) is in the lake's records.

Other engines read these tables, and must not write them: the next publication takes back what they did. Their vacuum
would delete files that the lake needs, so a table asks for a retention of ten years.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import CallError, LakeError, without_credentials
from airflow_provider_chatexport.lake.publish.access import s3_access
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError, root_of
from airflow_provider_chatexport.lake.publish.plan import APP_ID, Change, LiveFile, TableState
from airflow_provider_chatexport.lake.schema.arrow import arrow_schema
from airflow_provider_chatexport.lake.schema.types import Kind, Placement, Table
from airflow_provider_chatexport.lake.storage.store import LakeStore

try:
    import deltalake
    from deltalake import transaction
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
except ImportError:
    raise CallError(
        "publishing as Delta needs deltalake; run pip install 'airflow-provider-chatexport[delta]'"
    ) from None

# A file that the log does not name may be of the next publication, or be read by the lake alone.
_RETENTION: Final = "interval 3650 days"

# A checkpoint removes commits that are older than this. The lake keeps the files of earlier versions for a day only, so
# those versions cannot be read anyway. Delta's own default is 30 days.
_LOG_RETENTION: Final = "delta.logRetentionDuration"
_LOG_KEPT: Final = "interval 7 days"
# Who opens a table reads the last checkpoint and all commits since then. The library's own default is 100.
CHECKPOINT_EVERY: Final = 20


class DeltaFormat:
    """The Delta tables of one lake.

    :raises LakeError: no Delta table can be written where the lake lies.
    """

    kind = Sink.DELTA

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._options = _storage_options(store)

    def where(self, table: Table) -> str:
        """Return the address of a table."""
        return self._store.url(root_of(table))

    def open(self, table: Table) -> DeltaTable:
        """Open a table, which may not exist yet.

        :raises LakeError: its log cannot be read.
        """
        address = _address(self.where(table))
        try:
            opened = deltalake.DeltaTable(address, storage_options=self._options)
        except TableNotFoundError:
            opened = None
        except (DeltaError, OSError) as error:
            raise _failed("read", address, error) from None
        return DeltaTable(table, address, root_of(table), self._options, opened)


class DeltaTable:
    """One table, opened at its latest version.

    :param root: the table's folder, relative to the lake.
    :param opened: None if there is no table yet.
    """

    def __init__(
        self, table: Table, address: str, root: str, options: dict[str, str], opened: deltalake.DeltaTable | None
    ) -> None:
        self._table = table
        self._address = address
        self._root = root
        self._options = options
        self._opened = opened

    def state(self) -> TableState | None:
        """Return what the table has; None if there is no table."""
        if self._opened is None:
            return None
        try:
            return TableState(
                files=frozenset(f"{self._root}/{path}" for path in self._sizes()),
                columns=frozenset(field.name for field in self._opened.schema().fields),
                version=self._opened.transaction_version(APP_ID),
            )
        except (DeltaError, OSError) as error:
            raise _failed("read", self._address, error) from None

    def commit(self, change: Change) -> None:
        """Make a change in one commit; new columns are added by one before it."""
        properties = transaction.CommitProperties(
            custom_metadata={"chatexport.version": str(change.version)},
            # Of two commits with one application transaction, the second conflicts, whatever files they change.
            app_transactions=[deltalake.Transaction(APP_ID, change.version)],
            max_commit_retries=0,
        )
        try:
            if self._opened is None:
                self._create(change, properties)
            else:
                self._change(self._opened, change, properties)
        except CommitFailedError as error:
            raise PublishConflictError(f"{self._address} was changed meanwhile ({type(error).__name__})") from None
        except (DeltaError, OSError) as error:
            if self._opened is None and deltalake.DeltaTable.is_deltatable(self._address, self._options):
                raise PublishConflictError(f"{self._address} was created meanwhile") from None
            raise _failed("write", self._address, error) from None

    def drop_history(self) -> None:
        """Write a checkpoint, and remove the log before it. Tombstones stay: the path of a file and no more."""
        if self._opened is None:
            return
        try:
            # The library removes what is older than the table's retention.
            self._opened.alter.set_table_properties({_LOG_RETENTION: "interval 0 days"})
            self._opened.create_checkpoint()
            self._opened.cleanup_metadata()
            self._opened.alter.set_table_properties({_LOG_RETENTION: _LOG_KEPT})
        except CommitFailedError as error:
            raise PublishConflictError(f"{self._address} was changed meanwhile ({type(error).__name__})") from None
        except (DeltaError, OSError) as error:
            raise _failed("write", self._address, error) from None

    def _create(self, change: Change, properties: transaction.CommitProperties) -> None:
        transaction.create_table_with_add_actions(
            self._address,
            delta_schema(change.table),
            [self._add(each) for each in change.add],
            mode="error",
            name=change.table.name,
            description=change.table.doc,
            configuration={
                "delta.deletedFileRetentionDuration": _RETENTION,
                "delta.checkpointInterval": str(CHECKPOINT_EVERY),
                _LOG_RETENTION: _LOG_KEPT,
                # By default, readers look at the bounds of the first 32 columns, and the day is behind those.
                "delta.dataSkippingStatsColumns": ",".join(bounded_columns(change.table)),
            },
            storage_options=self._options,
            commit_properties=properties,
        )

    def _change(self, opened: deltalake.DeltaTable, change: Change, properties: transaction.CommitProperties) -> None:
        schema = delta_schema(change.table)
        if change.new_columns:
            new = [field for field in schema.fields if field.name in change.new_columns]
            opened.alter.add_columns(new, commit_properties=transaction.CommitProperties(max_commit_retries=0))
        if not change.add and not change.remove:
            return
        sizes = self._sizes()
        relative = [path.removeprefix(f"{self._root}/") for path in change.remove]
        now_ms = int(time.time() * 1000)
        removed = [
            transaction.RemoveAction(
                path, data_change=True, deletion_timestamp=now_ms, size=sizes[path], partition_values={}
            )
            for path in relative
        ]
        opened.create_write_transaction(
            [*(self._add(each) for each in change.add), *removed], "append", schema, commit_properties=properties
        )

    def _sizes(self) -> dict[str, int]:
        """Return the files of the log, relative to the table's root, each with its size in bytes."""
        assert self._opened is not None  # noqa: S101 - both callers have looked
        actions = self._opened.get_add_actions()
        return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))

    def _add(self, live: LiveFile) -> transaction.AddAction:
        return transaction.AddAction(
            path=live.path.removeprefix(f"{self._root}/"),
            size=live.file.size_bytes,
            partition_values={},
            modification_time=int(live.committed_at.timestamp() * 1000),
            data_change=True,
            stats=json.dumps(statistics(self._table, live)),
        )


def statistics(table: Table, live: LiveFile) -> dict[str, Any]:
    """Return what the log says of a file's rows, from the file's record.

    None of it is about a person: of texts, it has the bounds of channels only.
    """
    bounds = {name: (least, greatest) for name, least, greatest in live.file.bounds}
    if table.placement is Placement.EVENT:
        bounds[table.date_column] = (live.file.first_day, live.file.last_day)
    return {
        "numRecords": live.file.rows,
        "minValues": {name: least for name, (least, _) in bounds.items()},
        "maxValues": {name: greatest for name, (_, greatest) in bounds.items()},
        "nullCount": {},
    }


def bounded_columns(table: Table) -> list[str]:
    """Return the columns of which a file's bounds are known: of each row its moment, its channel and its day."""
    known = [table.day_column or "_exported_at", "cid"]
    names = [column.name for column in table if column.name in known]
    return [*names, table.date_column] if table.placement is Placement.EVENT else names


def delta_schema(table: Table) -> deltalake.Schema:
    """Return the columns of a table, each with its description."""
    docs = {column.name: column.doc for column in table} | {table.date_column: table.date_doc}
    kinds = {column.name: column.kind for column in table}
    fields = deltalake.Schema.from_arrow(arrow_schema(table)).fields
    return deltalake.Schema(
        [
            deltalake.Field(
                each.name,
                each.type,
                nullable=True,
                metadata={"comment": docs[each.name] + " As JSON text." * (kinds.get(each.name) is Kind.JSON)},
            )
            for each in fields
        ]
    )


def _address(uri: str) -> str:
    # The same store under another name, which the library does not take.
    return f"s3://{uri.removeprefix('s3a://')}" if uri.startswith("s3a://") else uri


def _storage_options(store: LakeStore) -> dict[str, str]:
    access = s3_access(store)
    if access is None:
        return {}
    found = {
        "aws_access_key_id": access.key,
        "aws_secret_access_key": access.secret,
        "aws_session_token": access.token,
        "aws_region": access.region,
        "aws_endpoint_url": access.endpoint_url,
        "aws_allow_http": "true" if (access.endpoint_url or "").startswith("http://") else None,
        "aws_skip_signature": "true" if access.key is None else None,
        # Two writers of one version of the log: the second is refused. The lake itself relies on that, too.
        "aws_conditional_put": "etag",
    }
    return {name: value for name, value in found.items() if value is not None}


def _failed(verb: str, address: str, error: Exception) -> LakeError:
    why = without_credentials(str(error).splitlines()[0])[:200] if str(error) else type(error).__name__
    return LakeError(
        f"cannot {verb} the Delta table {address} ({type(error).__name__}: {why}); check that it is reachable, and "
        "publish again"
    )
