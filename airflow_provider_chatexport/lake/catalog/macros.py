"""Macros of the catalog: the usual questions, with their answers written once.

They name the views without a database, so they are found where the catalog is the database in use: opened by itself,
or after ``USE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro:
    """:param is_table: used in FROM, rather than as a value."""

    name: str
    parameters: tuple[str, ...]
    doc: str
    example: str
    body: str
    is_table: bool = True

    def create(self) -> str:
        kind = "TABLE " if self.is_table else ""
        return f"CREATE MACRO {self.name}({', '.join(self.parameters)}) AS {kind}{self.body}"


MACROS: Final = (
    Macro(
        name="thread",
        parameters=("message_id",),
        doc="A message and the replies to it in its thread, in order of time, with the names of their authors.",
        example="FROM thread('8d5a...')",
        body="SELECT m.created_at, m.user_id, u.name, m.text, m.id, m.deleted_at FROM messages m "
        "LEFT JOIN users u ON u.id = m.user_id WHERE m.id = message_id OR m.parent_id = message_id "
        "ORDER BY m.parent_id IS NOT NULL, m.created_at, m.id",
    ),
    Macro(
        name="activity",
        parameters=("channel", "since", "until"),
        doc="A channel by UTC day in [since, until): messages that are not deleted, those that are replies in threads, "
        "people who wrote, and reactions to the day's messages. A bound without a zone is one of the session's.",
        example="FROM activity('livestream:ubuntu', '2025-01-01T00:00:00Z', '2025-02-01T00:00:00Z')",
        # The day folders are told with a day to spare, whatever the session's time zone makes of the bounds.
        body="SELECT m.event_date AS day, count(*) AS messages, count(*) FILTER (m.parent_id IS NOT NULL) AS replies, "
        "count(DISTINCT m.user_id) AS people, coalesce(sum(r.n), 0)::BIGINT AS reactions FROM messages m LEFT JOIN "
        "(SELECT message_id, count(*) AS n FROM reactions WHERE cid = channel GROUP BY message_id) r "
        "ON r.message_id = m.id WHERE m.cid = channel AND m.deleted_at IS NULL "
        "AND m.created_at >= since::TIMESTAMPTZ AND m.created_at < until::TIMESTAMPTZ "
        "AND m.event_date >= since::DATE - 1 AND m.event_date <= until::DATE + 1 GROUP BY day ORDER BY day",
    ),
    Macro(
        name="custom_value",
        parameters=("custom", "key"),
        doc="The value of a key of `custom` as text, whatever the key's spelling; null where there is none.",
        example="SELECT custom_value(custom, 'it''s \"priority\"') FROM messages",
        # A pointer takes any key; a path cannot name an empty one.
        body="json_extract_string(custom, '/' || replace(replace(key, '~', '~0'), '/', '~1'))",
        is_table=False,
    ),
)
