"""What a table format has to do so that a lake can be published to it.

``driver.publish`` decides, and a format reads and commits. A format has no state between calls but its connection, and
commits a ``Change`` whole or not at all.
"""

from __future__ import annotations

from typing import Protocol

from airflow_provider_chatexport.core.sinks import Sink
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.publish.plan import Change, TableState
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.storage.store import FILES_FOLDER


class PublishConflictError(LakeError):
    """Another process has changed a published table since it was read. The caller reads everything again."""


def root_of(table: Table) -> str:
    """Return the folder of a table's files, relative to the lake. Its readers expect all of its files inside."""
    return f"{FILES_FOLDER}/{table.name}"


class PublishedTable(Protocol):
    """One table of a format, opened. It shows the table as it was then."""

    def state(self) -> TableState | None:
        """Return what the table has; None if there is no table.

        :raises LakeError: it cannot be read.
        """

    def commit(self, change: Change) -> None:
        """Make a change in one step, unless another process has changed the table since it was opened.

        The format creates the table if the change says that it is new, adds the columns that it lacks, exchanges the
        files, and says the version. It copies and reads no data file: what it says of a file comes from its record.

        :raises PublishConflictError: another process was first, and nothing was changed.
        :raises LakeError: the table cannot be written.
        """

    def drop_history(self) -> None:
        """Remove what the format keeps of earlier states of the table: lists that name files and their channels.

        :raises PublishConflictError: another process was first; what is left can be removed with another call.
        :raises LakeError: the table cannot be written.
        """


class TableFormat(Protocol):
    """A table format, for one lake."""

    @property
    def kind(self) -> Sink:
        """Which format it is."""

    def where(self, table: Table) -> str:
        """Return how readers of the format name a table: its address, or its name in a catalog. Without secrets."""

    def open(self, table: Table) -> PublishedTable:
        """Open a table as it is now, or as one that does not exist yet.

        :raises LakeError: the place cannot be read.
        """
