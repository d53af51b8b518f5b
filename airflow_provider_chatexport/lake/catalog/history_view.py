"""``messages_history``: the versions of messages over time, and when messages disappeared.

Every export that covers a message's moment is an observation of it: the export contains the message in some version, or
it does not contain the message. The query goes from observations to versions:

1. ``observed``: every row that can be read, by message in the order of exports. ``_content`` is a hash of what the
   service says of the message, without the export's own columns.
2. ``gone`` and ``gone_now``: for each observation, the first newer export that covers the moment and does not contain
   the message. Only an export of which every row can still be read proves that (``READABLE_ENTRIES``). If no newer
   observation follows, an export that decides what is visible proves it as well (``DECIDING_ENTRIES``).
3. ``numbered``: a new version begins where the content differs from the observation before, or where the message was
   gone in between.
4. ``versions``: the first observation of each version, with ``valid_from``: the message's own time of change if it
   fits between the two exports, else the time of the export. It is never later: an export contains only what was true
   when it was made, even if a message is dated ahead.

A version ends when an export found the message gone, or when the next version begins.
"""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.lake.catalog.metadata_views import CHANNEL_SETS, internal_name
from airflow_provider_chatexport.lake.commits.coverage_tables import per_channel
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.schema.types import Table

NAME: Final = "messages_history"
DOC: Final = (
    "Versions of messages, as exports contain them, with the span of time in which each was true. Of an export that "
    "newer ones supersede entirely, only what `keep_superseded` kept is here."
)
COLUMNS: Final = (
    (
        "valid_from",
        "When this version began: its own time of change, or the time of the first export that contains it; never "
        "later than that export.",
    ),
    ("valid_to", "When the next version began, or when an export found the message gone; null for what is true now."),
)
# A macro: every row that can be read, once.
VERSIONS: Final = internal_name("versions")
# Tables of coverage entries that look at a moment for a second time, by ``Snapshot``: of exports of which every row can
# still be read, and of exports that decide what is visible.
READABLE_ENTRIES: Final = internal_name("readable_coverage")
DECIDING_ENTRIES: Final = internal_name("deciding_coverage")
_OF_THE_EXPORT: Final = ("_exported_at", "_load_id")
_RANK: Final = "struct_pack(exported_at := {0}exported_at, load_id := {0}load_id)"
_ROW_RANK: Final = _RANK.format("rows._")
_NEWER_RANK: Final = _RANK.format("newer.")


def query(table: Table) -> str:
    """Return the view's query.

    :param table: messages, with the promoted columns of the lake.
    """
    columns = ", ".join(f"rows.{sql.name(each)}" for each in (*(column.name for column in table), table.date_column))
    content = ", ".join(f"rows.{sql.name(column.name)}" for column in MESSAGES if column.name not in _OF_THE_EXPORT)
    changed_at = "greatest(rows.updated_at, rows.deleted_at)"
    return f"""
        WITH observed AS (
            SELECT rows.*, hash({content}) AS _content, {_ROW_RANK} AS _rank, lead({_ROW_RANK}) OVER of_id AS _next
            FROM {VERSIONS}() rows
            WINDOW of_id AS (PARTITION BY rows.id ORDER BY rows._exported_at, rows._load_id)
        ), gone AS (
            {_found_gone(READABLE_ENTRIES, "min", f"(rows._next IS NULL OR {_NEWER_RANK} < rows._next)")}
        ), gone_now AS (
            {_found_gone(DECIDING_ENTRIES, "max", "rows._next IS NULL")}
        ), followed AS (
            SELECT rows.*, coalesce(gone.found_at, gone_now.found_at) AS _gone
            FROM observed rows LEFT JOIN gone USING (id, _rank) LEFT JOIN gone_now USING (id, _rank)
        ), compared AS (
            SELECT *, lag(_content) OVER of_id AS _content_before, lag(_gone) OVER of_id AS _gone_before,
                lag(_exported_at) OVER of_id AS _exported_before
            FROM followed WINDOW of_id AS (PARTITION BY id ORDER BY _rank)
        ), numbered AS (
            SELECT *, count(*) FILTER (_content_before IS DISTINCT FROM _content OR _gone_before IS NOT NULL)
                OVER (PARTITION BY id ORDER BY _rank) AS _version
            FROM compared
        ), versions AS (
            SELECT rows.*, max(_gone) OVER (PARTITION BY id, _version) AS _found_gone, CASE
                WHEN _exported_before IS NULL THEN least(coalesce({changed_at}, rows.created_at), _exported_at)
                WHEN {changed_at} > coalesce(_gone_before, _exported_before) AND {changed_at} <= _exported_at
                    THEN {changed_at}
                ELSE _exported_at
            END AS valid_from
            FROM numbered rows QUALIFY row_number() OVER (PARTITION BY id, _version ORDER BY _rank) = 1
        )
        SELECT rows.valid_from, coalesce(_found_gone, lead(rows.valid_from) OVER of_id) AS valid_to, {columns}
        FROM versions rows WINDOW of_id AS (PARTITION BY rows.id ORDER BY _rank)"""


def _found_gone(entries: str, which: str, condition: str) -> str:
    """Return the query for when a newer export covers an observation's moment without containing the message.

    :param entries: the table with the coverage entries of the exports to look at, as ``newer``.
    :param which: ``min`` for the first such export, ``max`` for the last one.
    :param condition: what else has to hold between the observation (``rows``) and the newer entry.
    """
    return f"""
            SELECT rows.id, rows._rank, {which}(newer.exported_at) AS found_at
            FROM observed rows JOIN ({per_channel(entries, CHANNEL_SETS)}) newer ON newer.cid = rows.cid
                AND rows.created_at >= newer.since AND rows.created_at < newer.until
                AND {_NEWER_RANK} > rows._rank AND {condition}
            GROUP BY ALL"""
