"""Macros of the catalog: queries for the usual questions.

They name the views without a database. So they work where the catalog is the database in use: if it was opened by
itself, or after ``USE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


def _in_utc(moment: str) -> str:
    """Return SQL for a parameter as a time: text, a date or a time without a zone is in UTC, whatever the session's is.

    In text, an offset or a zone comes after the colon of the time. A TIMESTAMPTZ as text has an offset.
    """
    text = f"{moment}::VARCHAR"
    return (
        f"CASE WHEN regexp_matches({text}, ':.*[-+A-Za-z]') THEN {text}::TIMESTAMPTZ "
        f"ELSE {text}::TIMESTAMP AT TIME ZONE 'UTC' END"
    )


def _utc_date(moment: str) -> str:
    return f"(({_in_utc(moment)}) AT TIME ZONE 'UTC')::DATE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro:
    """A macro of the catalog.

    :param is_table: it is used in FROM, and not as a value.
    """

    name: str
    parameters: tuple[str, ...]
    doc: str
    example: str
    body: str
    is_table: bool = True

    def create(self) -> str:
        """Return the statement that creates it."""
        kind = "TABLE " if self.is_table else ""
        return f"CREATE MACRO {self.name}({', '.join(self.parameters)}) AS {kind}{self.body}"


MACROS: Final = (
    Macro(
        name="thread",
        parameters=("message_id",),
        doc="A message and the replies in its thread, by time, with the names of their authors.",
        example="FROM thread('8d5a...')",
        body="""
            SELECT m.created_at, m.user_id, u.name, m.text, m.id, m.deleted_at
            FROM messages m LEFT JOIN users u ON u.id = m.user_id
            WHERE m.id = message_id OR m.parent_id = message_id
            ORDER BY m.parent_id IS NOT NULL, m.created_at, m.id""",
    ),
    Macro(
        name="activity",
        parameters=("channel", "since", "until"),
        doc="A channel by UTC day in [since, until): messages that are not deleted, how many of them are replies in "
        "threads, people who wrote, and reactions to the day's messages. A bound without a time zone is in UTC.",
        example="FROM activity('livestream:ubuntu', '2025-01-01', '2025-02-01')",
        # The condition on event_date lets DuckDB leave out files.
        body=f"""
            SELECT m.event_date AS day, count(*) AS messages, count(*) FILTER (m.parent_id IS NOT NULL) AS replies,
                count(DISTINCT m.user_id) AS people, coalesce(sum(r.n), 0)::BIGINT AS reactions
            FROM messages m LEFT JOIN (
                SELECT message_id, count(*) AS n FROM reactions WHERE cid = channel GROUP BY message_id
            ) r ON r.message_id = m.id
            WHERE m.cid = channel AND m.deleted_at IS NULL AND m.type IS DISTINCT FROM 'deleted'
                AND m.created_at >= {_in_utc("since")} AND m.created_at < {_in_utc("until")}
                AND m.event_date BETWEEN {_utc_date("since")} AND {_utc_date("until")}
            GROUP BY day ORDER BY day""",
    ),
    Macro(
        name="missing_replies",
        parameters=(),
        doc="By channel, the threads that know of more replies than the lake has, and how many they miss: it is not "
        "known whether an export contains replies. A reply from before or after what the lake covers is missing, too.",
        example="FROM missing_replies()",
        # As in ``replies_missing``: ``reply_count`` leaves out deleted replies.
        body="""
            SELECT m.cid, count(*) AS threads, sum(m.reply_count)::BIGINT AS reply_count,
                sum(m.reply_count - coalesce(r.n, 0))::BIGINT AS missing
            FROM messages m LEFT JOIN (
                SELECT parent_id, count(*) AS n FROM messages
                WHERE parent_id IS NOT NULL AND deleted_at IS NULL AND type IS DISTINCT FROM 'deleted'
                GROUP BY parent_id
            ) r ON r.parent_id = m.id
            WHERE m.reply_count > coalesce(r.n, 0)
            GROUP BY m.cid ORDER BY missing DESC, m.cid""",
    ),
    Macro(
        name="custom_value",
        parameters=("custom", "key"),
        doc="The value of a key of `custom` as text, whatever characters the key has; null if there is no such key.",
        example="SELECT custom_value(custom, 'it''s \"priority\"') FROM messages",
        # A JSON pointer can name every key; a path cannot name an empty one.
        body="json_extract_string(custom, '/' || replace(replace(key, '~', '~0'), '/', '~1'))",
        is_table=False,
    ),
)
