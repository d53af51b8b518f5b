"""``messages_history``: what became of messages over time, as one export after another told it."""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.lake.catalog.metadata_views import internal_name
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.schema.types import Table

NAME: Final = "messages_history"
DOC: Final = (
    "Versions of messages, as exports told them, with the span in which each was the truth. Of exports that newer ones "
    "superseded entirely, only what keep_superseded kept."
)
COLUMNS: Final = (
    ("valid_from", "When this version came to be: its own time of change, or the export that first told it."),
    ("valid_to", "When the next version came to be, or an export found the message gone; null for what is true now."),
)
# Every row that can be read, once; and second looks, by ``LakeState``: of exports that can be read as a whole, and of
# those that decide what is visible.
VERSIONS: Final = internal_name("versions")
READABLE: Final = internal_name("readable_claims")
DECIDING: Final = internal_name("deciding_claims")
_NOT_TOLD: Final = ("_exported_at", "_load_id")


def query(table: Table) -> str:
    """The view's query.

    :param table: messages, with the promoted columns of the lake.
    """
    columns = ", ".join(f"rows.{sql.name(each)}" for each in (*(column.name for column in table), table.partition))
    told = ", ".join(f"rows.{sql.name(column.name)}" for column in MESSAGES if column.name not in _NOT_TOLD)
    changed = "greatest(rows.updated_at, rows.deleted_at)"
    return f"""
        WITH tellings AS (
            SELECT rows.*, hash({told}) AS _told, {_RANK} AS _rank, lead({_RANK}) OVER of_id AS _next
            FROM {VERSIONS}() rows
            WINDOW of_id AS (PARTITION BY rows.id ORDER BY rows._exported_at, rows._load_id)
        ), gone AS (
            {_found_gone(READABLE, "min", "(rows._next IS NULL OR {rank} < rows._next)")}
        ), gone_now AS (
            {_found_gone(DECIDING, "max", "rows._next IS NULL")}
        ), followed AS (
            SELECT rows.*, coalesce(gone.found_at, gone_now.found_at) AS _gone
            FROM tellings rows LEFT JOIN gone USING (id, _rank) LEFT JOIN gone_now USING (id, _rank)
        ), compared AS (
            SELECT *, lag(_told) OVER of_id AS _told_before, lag(_gone) OVER of_id AS _gone_before,
                lag(_exported_at) OVER of_id AS _exported_before
            FROM followed WINDOW of_id AS (PARTITION BY id ORDER BY _rank)
        ), numbered AS (
            SELECT *, count(*) FILTER (_told_before IS DISTINCT FROM _told OR _gone_before IS NOT NULL)
                OVER (PARTITION BY id ORDER BY _rank) AS _version
            FROM compared
        ), versions AS (
            SELECT rows.*, max(_gone) OVER (PARTITION BY id, _version) AS _found_gone, CASE
                WHEN _exported_before IS NULL THEN coalesce({changed}, rows.created_at)
                WHEN {changed} > coalesce(_gone_before, _exported_before) AND {changed} <= _exported_at THEN {changed}
                ELSE _exported_at
            END AS valid_from
            FROM numbered rows QUALIFY row_number() OVER (PARTITION BY id, _version ORDER BY _rank) = 1
        )
        SELECT rows.valid_from, coalesce(_found_gone, lead(rows.valid_from) OVER of_id) AS valid_to, {columns}
        FROM versions rows WINDOW of_id AS (PARTITION BY rows.id ORDER BY _rank)"""


_RANK: Final = "struct_pack(exported_at := rows._exported_at, load_id := rows._load_id)"


def _found_gone(claims: str, which: str, condition: str) -> str:
    """Of each telling, when a newer claim of its moment did not tell the message any more.

    :param condition: on the telling and the ``{rank}`` of the newer claim.
    """
    rank = "struct_pack(exported_at := newer.exported_at, load_id := newer.load_id)"
    return (
        f"SELECT rows.id, rows._rank, {which}(newer.exported_at) AS found_at FROM tellings rows JOIN {claims} newer "
        "ON newer.cid = rows.cid AND rows.created_at < newer.until "
        f"AND rows.created_at >= newer.since AND {rank} > rows._rank AND {condition.format(rank=rank)} GROUP BY ALL"
    )
