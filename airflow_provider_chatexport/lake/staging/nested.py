"""Rows drawn from inside objects: attachments and latest reactions of messages, members of channels, users of all.

What an object of its own tells goes before what another one carries of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import (
    ATTACHMENTS,
    CHANNELS,
    MEMBERS,
    MESSAGES,
    REACTIONS,
    USER_EXPORT_MESSAGES,
    USER_EXPORT_REACTIONS,
    USER_EXPORT_USERS,
    USERS,
)
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.stage import Stage

# What is taken apart at a time of lists inside objects.
SLICE_BYTES: Final = 16_000_000


class NestedRows:
    """:raises duckdb.Error: by ``draw``; the work folder is full, or the memory limit too small."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def draw(self) -> None:
        """Adds to the stage tables, once they hold one row per key."""
        self._attachments()
        self._latest_reactions()
        self._members()
        self._users()
        self._exported_users()

    def _attachments(self) -> None:
        table = ATTACHMENTS
        kept = (
            "id AS message_id, cid, created_at AS message_created_at, _exported_at, _load_id, _input, _n, "
            "unnest(range(json_array_length(_attachments)::BIGINT)) AS position"
        )
        for items in self._items(MESSAGES, "attachments", kept):
            self._stage.execute(
                f"INSERT INTO stage_attachments BY NAME SELECT {queries.columns(table)}, message_id, cid, "
                "message_created_at, position, _exported_at, _load_id, _input, _n, _cast_failures, "
                f"({sql.is_object('j')}) IS true AS _complete FROM ({_apart(table, items)})"
            )
        self._keep_odd_lists(MESSAGES, "attachments", table, "message_id")
        self._stage.join_clashing_custom(table)

    def _latest_reactions(self) -> None:
        of_message = {"message_id": "id", "cid": "cid", "message_created_at": "created_at"}
        self._told_elsewhere(MESSAGES, "latest_reactions", REACTIONS, of_message)

    def _members(self) -> None:
        self._told_elsewhere(CHANNELS, "members", MEMBERS, {"cid": "cid"})

    def _told_elsewhere(self, of: Table, key: str, table: Table, told: dict[str, str]) -> None:
        """Items that may have objects of their own as well, and count where those are absent or older.

        :param told: the columns that the object tells in which the list is, and by which of its own; the one that
            names it first.
        """
        kept = ", ".join(f"{own} AS {column}" for column, own in told.items())
        for items in self._items(of, key, f"{kept}, _exported_at, _load_id"):
            self._stage.execute(
                f"INSERT INTO stage_{table.name} BY NAME SELECT {queries.columns(table, leave_out=told)}, "
                f"{', '.join(f'item.{column}' for column in told)}, _exported_at, _load_id, -1 AS _input, 0 AS _n, "
                f"_cast_failures, "
                f"({sql.is_object('j')} AND {queries.keyed(table, leave_out=told)}) IS true AS _complete "
                f"FROM ({_apart(table, items)}) item"
            )
            self._stage.execute(
                "INSERT INTO embedded_users SELECT DISTINCT j, _exported_at FROM (SELECT json_extract(j, '/user') "
                f"AS j, _exported_at FROM ({items})) WHERE {sql.is_object('j')}"
            )
        self._keep_odd_lists(of, key, table, next(iter(told)))
        self._stage.join_clashing_custom(table)
        self._stage.keep_newest(table)

    def _items(self, of: Table, key: str, kept: str) -> Iterator[str]:
        """Queries for the items ``j`` of a table's lists, a bounded part at a time."""
        n_bytes, first, last = self._stage.one(
            f"SELECT sum(strlen(_{key}::VARCHAR)), min(rowid), max(rowid) FROM stage_{of.name} WHERE _{key} IS NOT NULL"
        )
        if n_bytes is not None:
            n_rows = (last - first) // (1 + n_bytes // SLICE_BYTES) + 1
            for begin in range(first, last + 1, n_rows):
                yield (
                    f"SELECT {kept}, unnest(from_json(_{key}, '[\"JSON\"]')) AS j FROM stage_{of.name} "
                    f"WHERE _{key} IS NOT NULL AND rowid >= {begin} AND rowid < {begin + n_rows}"
                )

    def _keep_odd_lists(self, of: Table, key: str, table: Table, owner: str) -> None:
        """Items that can be no row: the list that they are in stays with its object, under its key, and is counted."""
        odd = f"SELECT {owner} FROM stage_{table.name} WHERE NOT _complete"
        if self._stage.one(f"SELECT count(*) FROM ({odd})") != (0,):
            self._stage.execute(
                f"""UPDATE stage_{of.name} SET custom = '[{{"{key}":' || _{key}::VARCHAR || '}},' || custom || ']', """
                f"_cast_failures = list_append(coalesce(_cast_failures, []), '{key}') WHERE {of.key[0]} IN ({odd})"
            )
            self._stage.join_clashing_custom(of)
            self._stage.delete(table, "NOT _complete")

    def _users(self) -> None:
        """Users from everywhere, beside those on lines of their own; the version that is newest, then the fullest."""
        table = USERS
        versions = "SELECT j, max(exported_at) AS exported_at FROM embedded_users GROUP BY j"
        self._stage.execute(
            f"INSERT INTO stage_users BY NAME SELECT {queries.columns(table)}, exported_at AS _exported_at, "
            f"{sql.quoted(self._stage.load_id)} AS _load_id, -1 AS _input, strlen(j::VARCHAR) AS _n, "
            "_cast_failures FROM "
            f"({_apart(table, versions)}) WHERE {queries.keyed(table)}"
        )
        self._stage.join_clashing_custom(table)
        self._stage.keep_newest(table)

    def _exported_users(self) -> None:
        """Every user of whom an export holds rows has a row too: it says which of their exports is the newest."""
        owner, users = USER_EXPORT_USERS.owned_by, USER_EXPORT_USERS.name
        for table in (USER_EXPORT_MESSAGES, USER_EXPORT_REACTIONS):
            self._stage.execute(
                f"INSERT INTO stage_{users} BY NAME SELECT {owner}, {owner} AS id, max(_exported_at) AS _exported_at, "
                f"{sql.quoted(self._stage.load_id)} AS _load_id, '{{}}' AS custom FROM stage_{table.name} "
                f"WHERE {owner} NOT IN (SELECT {owner} FROM stage_{users}) GROUP BY {owner}"
            )


def _apart(table: Table, objects: str) -> str:
    """:param objects: a query for ``j``, an object as JSON, and what else is to be kept."""
    apart = queries.with_values(table, f"SELECT *, {queries.split_object(table, 'j')} FROM ({objects})")
    return queries.with_failed_casts_in_custom(table, apart, "j", is_placed=False)
