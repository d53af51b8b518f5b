"""Reactions in the stage: which channel and moment they belong to, and how many an export does not carry."""

from __future__ import annotations

from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.staging import queries
from airflow_provider_chatexport.lake.staging.stage import Stage


def place_reactions(stage: Stage) -> None:
    """Place each reaction with its message, of several versions with the one that will remain.

    A reaction whose message is not in the load belongs to the channel that it names, else to the channel before it in
    the file. It is placed by its own time, which has to be in the window.
    """
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
SET cid = coalesce(
    json_extract_string(custom, '/channel_cid'),
    json_extract_string(custom, '/channel_type') || ':' || json_extract_string(custom, '/channel_id')
)
WHERE cid IS NULL
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


def count_missing_reactions(stage: Stage) -> None:
    """Set ``reactions_missing`` of the messages that know of more reactions than the load has.

    Few messages have reactions, and few of those have more than the export carries: all others stay at 0.
    """
    stage.database.execute(f"""
UPDATE stage_messages
SET reactions_missing = missing.n
FROM (
    SELECT id, sum(known.n - coalesce(carried.n, 0)) AS n
    FROM (
        SELECT id, unnest(json_keys(reaction_counts)) AS type,
            TRY_CAST(unnest(json_extract_string(reaction_counts, '$.*')) AS BIGINT) AS n
        FROM stage_messages WHERE {sql.is_object("reaction_counts")}
    ) known
    LEFT JOIN (SELECT message_id AS id, type, count(*) AS n FROM stage_reactions GROUP BY ALL) carried USING (id, type)
    WHERE known.n > coalesce(carried.n, 0)
    GROUP BY id
) missing
WHERE missing.id = stage_messages.id
""")
