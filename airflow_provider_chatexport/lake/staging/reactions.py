"""What belongs to messages in the stage: where their reactions belong, how many reactions and replies are missing."""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES, REACTIONS, USER_EXPORT_REACTIONS
from airflow_provider_chatexport.lake.schema.types import Kind
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.stage import Stage


def place_reactions(stage: Stage) -> None:
    """Place each reaction with its message, of several versions with the one that will remain.

    A reaction whose message is not in the load belongs to the channel that it names, else to the channel before it in
    the file. It is placed by its own time, which has to be in the window.
    """
    if not stage.has_rows(REACTIONS):
        return
    messages = "stage_messages"
    if stage.n_extra(MESSAGES):
        messages = f"({queries.newest(MESSAGES, first='_in_window DESC')})"
    stage.database.execute(f"""
UPDATE stage_reactions r
SET message_created_at = m.created_at, cid = coalesce(m.cid, r.cid), _in_window = m._in_window
FROM {messages} m WHERE m.id = r.message_id
""")
    stage.database.execute("""
UPDATE stage_reactions
SET cid = place
FROM (
    SELECT r.rowid AS row, c.cid AS place
    FROM stage_reactions r ASOF JOIN channel_lines c ON c.input = r._input AND c.n < r._n
    WHERE r.cid IS NULL
) found
WHERE stage_reactions.rowid = found.row
""")
    stage.database.execute("""
UPDATE stage_reactions SET message_created_at = created_at WHERE message_created_at IS NULL
""")


def place_reactions_of_users(stage: Stage) -> None:
    """Give a reaction in an export of users the channel of its message, if that is in the export and it names none."""
    if not stage.has_rows(USER_EXPORT_REACTIONS):
        return
    stage.database.execute("""
UPDATE stage_user_export_reactions r
SET cid = m.cid
FROM stage_user_export_messages m
WHERE r.cid IS NULL AND m.id = r.message_id AND m._input = r._input AND m.cid IS NOT NULL
""")


# Counts by type, in the message and in its groups: of two that differ, the larger one. Each object is parsed once.
_KNOWN: Final = f"""
SELECT id, type, max({sql.cast("n", Kind.INT)}) AS n
FROM (
    SELECT id, count.key AS type, count.value AS n FROM (
        SELECT id, unnest(map_entries(json_transform(reaction_counts, '"MAP(VARCHAR, VARCHAR)"'))) AS count
        FROM stage_messages WHERE {sql.is_object("reaction_counts")}
    )
    UNION ALL
    SELECT id, reaction_group.key AS type, reaction_group.value.count AS n FROM (
        SELECT id, unnest(map_entries(
            json_transform(reaction_groups, '"MAP(VARCHAR, STRUCT(count VARCHAR))"')
        )) AS reaction_group
        FROM stage_messages WHERE {sql.is_object("reaction_groups")}
    )
)
GROUP BY ALL
"""


def count_missing_reactions(stage: Stage) -> None:
    """Set ``reactions_missing`` of the messages that know of more reactions than the load has.

    Few messages have reactions, and few of those have more than the export carries: all others stay at 0.
    """
    if not stage.has_rows(MESSAGES, f"{sql.is_object('reaction_counts')} OR {sql.is_object('reaction_groups')}"):
        return
    stage.database.execute(f"""
UPDATE stage_messages
SET reactions_missing = missing.n
FROM (
    SELECT id, sum(known.n - coalesce(carried.n, 0)) AS n
    FROM ({_KNOWN}) known
    LEFT JOIN (SELECT message_id AS id, type, count(*) AS n FROM stage_reactions GROUP BY ALL) carried USING (id, type)
    WHERE known.n > coalesce(carried.n, 0)
    GROUP BY id
) missing
WHERE missing.id = stage_messages.id
""")


def count_missing_replies(stage: Stage) -> None:
    """Set ``replies_missing`` of the messages that know of more replies than the load has.

    ``reply_count`` leaves out deleted replies, which ``deleted_reply_count`` counts.
    """
    if not stage.has_rows(MESSAGES, "reply_count > 0"):
        return
    stage.database.execute("""
UPDATE stage_messages
SET replies_missing = missing.n
FROM (
    SELECT known.id, known.reply_count - coalesce(carried.n, 0) AS n
    FROM stage_messages known
    LEFT JOIN (
        SELECT parent_id, count(*) AS n FROM stage_messages
        WHERE parent_id IS NOT NULL AND deleted_at IS NULL AND type IS DISTINCT FROM 'deleted' GROUP BY parent_id
    ) carried ON carried.parent_id = known.id
    WHERE known.reply_count > coalesce(carried.n, 0)
) missing
WHERE missing.id = stage_messages.id
""")
