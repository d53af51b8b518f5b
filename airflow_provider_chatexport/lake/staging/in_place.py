"""The seam of the fast path: how a file of channels is normalized, and where the users in its messages come from.

Without the fast path, all of this is ``normalize``.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import duckdb

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.duckdb_session import Database
from airflow_provider_chatexport.lake.normalize.doubled_keys import InsideCheck
from airflow_provider_chatexport.lake.normalize.entities import ChannelContext
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader
from airflow_provider_chatexport.lake.normalize.fast_path import normalize_in_place
from airflow_provider_chatexport.lake.normalize.normalizer import normalize
from airflow_provider_chatexport.lake.normalize.output import EntityFile, NormalizedFile
from airflow_provider_chatexport.lake.raw_json import NotAnObjectError
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.slices import slices

# The users in the messages of the file, where ``normalize_channels`` gathered them.
GATHERED: Final = "users_in_place"
# Users that are fetched at a time.
USERS: Final = 2_048


def any_doubled(database: Database, number: int, *, has_users: bool) -> bool:
    """Return whether a key stands twice inside a message in place, in a user or in an item that becomes a row.

    Python needs half of DuckDB's time for it.

    :param number: of the file.
    :param has_users: ``GATHERED`` has the users in its messages.
    """
    check = InsideCheck(MESSAGES)
    try:
        if has_users:
            for batch in database.query(f"SELECT j::VARCHAR FROM {GATHERED}").to_arrow_reader(USERS):
                check.check({"mentioned_users": f"[{','.join(batch.column(0).to_pylist())}]".encode()})
        for key in MESSAGES.nested_lists:
            for condition in slices(database, "stage_messages", f"_{key}", f"_input = {number}"):
                for (value,) in database.all(f"SELECT _{key}::VARCHAR FROM stage_messages WHERE {condition}"):
                    check.check({key: value.encode()})
    except NotAnObjectError:
        return True
    return False


# A condition on a message ``d``: what it quotes has a key twice. Normalizing line by line says which.
IS_DOUBTFUL: Final = """coalesce(
    CASE WHEN starts_with(d.quoted_message::VARCHAR, '{')
        THEN len(json_keys(d.quoted_message)) > len(list_distinct(json_keys(d.quoted_message))) END, false)"""


def normalize_channels(
    reader: ExportReader, folder: Path, max_line_bytes: int, database: Database
) -> tuple[NormalizedFile, bool]:
    """Normalize an export of channels, its messages left in place if they can be.

    While Python looks at the lines, DuckDB gathers the users from what are most likely messages in place. Where users
    are named by id there are none.

    :return: the file, and whether ``GATHERED`` has the users.
    :raises InputError: the file breaks off, or its array is not well formed.
    """
    is_likely = reader.payload_key is not None and not reader.is_wrapped and reader.likely_embeds_users
    with ThreadPoolExecutor(1) as executor:
        normalizing = executor.submit(_normalize, reader, folder, max_line_bytes)
        is_gathered = is_likely and _gather_users(reader, database)
        return normalizing.result(), is_gathered


def _normalize(reader: ExportReader, folder: Path, max_line_bytes: int) -> NormalizedFile:
    in_place = normalize_in_place(reader, folder, ChannelContext(max_line_bytes))
    return in_place or normalize(reader, folder, ChannelContext(max_line_bytes))


def _gather_users(reader: ExportReader, database: Database) -> bool:
    """Gather the users in the messages of a file that is not normalized yet; return whether that succeeded."""
    path = reader.path
    unchecked = EntityFile(entity=Entity.MESSAGE, path=path, nulls=path, n_objects=0, in_place=reader.payload_key)
    # Nothing is known of the file: DuckDB may meet a line that is too long for it.
    with contextlib.suppress(duckdb.Error), database.on_one_core():
        gather_users(unchecked, database)
        return True
    return False


def gather_users(messages: EntityFile, database: Database) -> None:
    """Gather the users in messages in place.

    :raises duckdb.Error: DuckDB cannot read the file.
    """
    database.execute(f"CREATE OR REPLACE TABLE {GATHERED} AS {queries.users_in(MESSAGES, messages)}")
