"""Rows extracted from inside objects: attachments, latest reactions, members of channels, what they read, all users.

An object of its own goes before a copy that another object carries.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import (
    ATTACHMENTS,
    CHANNELS,
    MEMBERS,
    MESSAGES,
    REACTIONS,
    READS,
    USER_EXPORT_MESSAGES,
    USER_EXPORT_REACTIONS,
    USER_EXPORT_USERS,
    USERS,
)
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.slices import slices
from airflow_provider_chatexport.lake.staging.stage import Stage


def extract_nested_rows(stage: Stage) -> None:
    """Add the rows to the stage tables, once these hold one row per key.

    :raises duckdb.Error: the work folder is full, or the memory limit too small.
    """
    _extract_attachments(stage)
    of_message = {"message_id": "id", "cid": "cid", "message_created_at": "created_at"}
    _extract_copies(stage, MESSAGES, "latest_reactions", REACTIONS, of_message)
    _extract_copies(stage, CHANNELS, "members", MEMBERS, {"cid": "cid"})
    _extract_reads(stage)
    _extract_users(stage)
    _add_exported_users(stage)


def _extract_attachments(stage: Stage) -> None:
    kept = """id AS message_id, cid, created_at AS message_created_at, _exported_at, _load_id, _input, _n,
        unnest(range(json_array_length(_attachments)::BIGINT)) AS position"""
    for items in _items(stage, MESSAGES, "attachments", kept):
        stage.database.execute(f"""
INSERT INTO stage_attachments BY NAME
SELECT {queries.columns(ATTACHMENTS)}, message_id, cid, message_created_at, position, _exported_at, _load_id, _input,
    _n, _cast_failures, ({sql.is_object("j")}) IS true AS _complete
FROM ({_split(ATTACHMENTS, items)})
""")
    if not stage.has_rows(ATTACHMENTS):
        return
    _keep_odd_lists(stage, MESSAGES, "attachments", ATTACHMENTS, "message_id")
    stage.join_clashing_custom(ATTACHMENTS)


def _extract_copies(stage: Stage, parent: Table, key: str, table: Table, from_parent: dict[str, str]) -> None:
    """Extract items that may come as objects of their own too. They count if those are absent or older.

    :param parent: the table of the objects that have a list of items, under ``key``.
    :param table: the table of the items.
    :param from_parent: the columns of ``table`` that the parent says, and by which of its own; the one that names the
        parent first.
    """
    kept = ", ".join(f"{own} AS {column}" for column, own in from_parent.items())
    any_items = False
    for items in _items(stage, parent, key, f"{kept}, _exported_at, _load_id"):
        any_items = True
        stage.database.execute(f"""
INSERT INTO stage_{table.name} BY NAME
SELECT {queries.columns(table, leave_out=from_parent)}, {", ".join(f"item.{column}" for column in from_parent)},
    _exported_at, _load_id, -1 AS _input, 0 AS _n, _cast_failures,
    ({sql.is_object("j")} AND {queries.keyed(table, leave_out=from_parent)}) IS true AS _complete
FROM ({_split(table, items)}) item
""")
        stage.database.execute(f"""
INSERT INTO embedded_users
SELECT DISTINCT j, _exported_at FROM (SELECT json_extract(j, '/user') AS j, _exported_at FROM ({items}))
WHERE {sql.is_object("j")}
""")
    if not any_items:
        return
    _keep_odd_lists(stage, parent, key, table, next(iter(from_parent)))
    stage.join_clashing_custom(table)
    stage.keep_newest(table)


def _extract_reads(stage: Stage) -> None:
    """Add what a member says to have read as a row of ``reads``, unless the export, or a newer one, has such a row."""
    if not stage.has_rows(MEMBERS):
        return
    n_added, *_ = stage.database.one(f"""
INSERT INTO stage_{READS.name} BY NAME
SELECT cid, user_id, _last_read AS last_read, '{{}}' AS custom, _exported_at, _load_id, -1 AS _input, 0 AS _n
FROM stage_{MEMBERS.name} member
WHERE _last_read IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM stage_{READS.name} own
    WHERE own.cid = member.cid AND own.user_id = member.user_id AND own._exported_at >= member._exported_at
)
""")
    if n_added:
        stage.keep_newest(READS)


def _items(stage: Stage, parent: Table, key: str, kept: str) -> Iterator[str]:
    """Yield queries for the items ``j`` of a table's lists, a bounded part at a time.

    :param kept: what is selected next to each item.
    """
    if not stage.has_rows(parent):
        return
    for condition in slices(stage.database, f"stage_{parent.name}", f"_{key}"):
        yield f"""
SELECT {kept}, unnest(from_json(_{key}, '["JSON"]')) AS j FROM stage_{parent.name} WHERE {condition}
"""


def _keep_odd_lists(stage: Stage, parent: Table, key: str, table: Table, parent_id: str) -> None:
    """Keep a list with items that cannot be rows in its object's ``custom``, under its key, and count it.

    :param parent_id: the column of ``table`` that names the parent.
    """
    odd = f"SELECT {parent_id} FROM stage_{table.name} WHERE NOT _complete"
    if stage.database.one(f"SELECT count(*) FROM ({odd})") != (0,):
        stage.database.execute(f"""
UPDATE stage_{parent.name}
SET custom = '[{{"{key}":' || _{key}::VARCHAR || '}},' || custom || ']',
    _cast_failures = list_append(coalesce(_cast_failures, []), '{key}')
WHERE {parent.key[0]} IN ({odd})
""")
        stage.join_clashing_custom(parent)
        stage.delete(table, "NOT _complete")


def _extract_users(stage: Stage) -> None:
    """Extract users from everywhere; of each the newest version is kept, of two alike the fullest."""
    if stage.database.one("SELECT count(*) FROM embedded_users") == (0,):
        return
    versions = "SELECT j, max(exported_at) AS exported_at FROM embedded_users GROUP BY j"
    stage.database.execute(f"""
INSERT INTO stage_users BY NAME
SELECT {queries.columns(USERS)}, exported_at AS _exported_at, {sql.quoted(stage.load_id)} AS _load_id, -1 AS _input,
    strlen(j::VARCHAR) AS _n, _cast_failures
FROM ({_split(USERS, versions)})
WHERE {queries.keyed(USERS)}
""")
    stage.join_clashing_custom(USERS)
    stage.keep_newest(USERS)


def _add_exported_users(stage: Stage) -> None:
    """Add a row for every user whose export has rows: it says which of their exports is the newest."""
    owner, users = USER_EXPORT_USERS.owned_by, USER_EXPORT_USERS.name
    for table in (USER_EXPORT_MESSAGES, USER_EXPORT_REACTIONS):
        if not stage.has_rows(table):
            continue
        stage.database.execute(f"""
INSERT INTO stage_{users} BY NAME
SELECT {owner}, {owner} AS id, max(_exported_at) AS _exported_at, {sql.quoted(stage.load_id)} AS _load_id,
    '{{}}' AS custom
FROM stage_{table.name}
WHERE {owner} NOT IN (SELECT {owner} FROM stage_{users})
GROUP BY {owner}
""")


def _split(table: Table, objects: str) -> str:
    """Return a query for objects as ``d`` and ``flat``.

    :param objects: a query for ``j``, an object as JSON, and what else is to be kept.
    """
    split = queries.with_values(table, f"SELECT *, {queries.split_object(table, 'j')} FROM ({objects})")
    return queries.with_failed_casts_in_custom(table, split, "j", is_placed=False)
