"""``messages_history``: what became of messages over time, as one export after another told it."""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.lake import schema, sql, visible

NAME: Final = "messages_history"
DOC: Final = (
    "Versions of messages, as exports told them, with the span in which each was the truth. Of exports that newer ones "
    "superseded entirely, only what keep_superseded kept."
)
COLUMNS: Final = (
    ("valid_from", "When this version came to be: its own time of change, or the export that first told it."),
    ("valid_to", "When the next version came to be, or an export found the message gone; null for what is true now."),
)
_ABOUT_EXPORT: Final = ("_exported_at", "_load_id")


def query(files: str) -> str:
    """The view's query. It reads ``_coverage``, for messages that a newer export does not have any more.

    :param files: a table function over the files that hold versions; the same version may be in several.
    """
    table = schema.MESSAGES
    columns = visible.columns(table)
    told = ", ".join(f"rows.{sql.name(column.name)}" for column in table if column.name not in _ABOUT_EXPORT)
    order = "PARTITION BY id ORDER BY _exported_at, _load_id"
    return f"""
        WITH told AS (
            SELECT {columns}, hash({told}) AS _told FROM {files} rows
        ), versions AS (
            SELECT * FROM told QUALIFY lag(_told) OVER ({order}) IS DISTINCT FROM _told
        ), last_told AS (
            SELECT id, max(struct_pack(exported_at := _exported_at, load_id := _load_id)) AS last FROM told GROUP BY id
        ), gone AS (
            SELECT rows.id, min(newer.exported_at) AS found_at
            FROM told rows JOIN last_told ON rows.id = last_told.id
                AND last.exported_at = rows._exported_at AND last.load_id = rows._load_id
            JOIN _coverage newer ON newer.cid = rows.cid AND rows.created_at < newer.until
                AND (newer.since IS NULL OR rows.created_at >= newer.since)
                AND struct_pack(exported_at := newer.exported_at, load_id := newer.load_id) > last
            GROUP BY rows.id
        ), dated AS (
            SELECT rows.*, CASE
                WHEN lag(_exported_at) OVER of_id IS NULL THEN coalesce(updated_at, created_at)
                ELSE greatest(
                    lag(_exported_at) OVER of_id, least(_exported_at, coalesce(deleted_at, updated_at, _exported_at))
                )
            END AS valid_from
            FROM versions rows WINDOW of_id AS ({order})
        )
        SELECT valid_from, CASE WHEN lead(valid_from) OVER of_id IS NOT NULL THEN lead(valid_from) OVER of_id
            ELSE found_at END AS valid_to, {columns}
        FROM dated rows LEFT JOIN gone USING (id)
        WINDOW of_id AS (PARTITION BY rows.id ORDER BY rows._exported_at, rows._load_id)"""
