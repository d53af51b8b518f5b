"""The two families of endpoints, and how each of them writes the same object.

Legacy paths have RFC3339 strings and custom fields flat in the object; ``/api/v2`` has unix nanoseconds and a
``custom`` map. The world keeps times as strings and custom fields apart, so each family is one pass over an object.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339, to_unix_ns

# Every field of kind time in the service's API description, over all objects that a reply may hold.
TIME_FIELDS: Final = frozenset(
    {
        "archived_at", "ban_expires", "created_at", "deactivated_at", "deleted_at", "end_at", "first_reaction_at",
        "future_channel_ban_expires", "hide_messages_before", "invite_accepted_at", "invite_rejected_at", "last_active",
        "last_delivered_at", "last_engaged_at", "last_message_at", "last_reaction_at", "last_read",
        "message_text_updated_at", "mute_expires_at", "pin_expires", "pinned_at", "revoke_tokens_issued_before",
        "truncated_at", "updated_at",
    }
)  # fmt: skip
# Maps whose keys are people's words (types of reactions, languages, ids) and not fields of a schema: a reaction of the
# type "custom" is not custom data.
MAPS: Final = frozenset(
    {
        "i18n", "image_labels", "latest_votes_by_option", "reaction_counts", "reaction_groups", "reaction_scores",
        "teams_role", "vote_counts_by_option",
    }
)  # fmt: skip


class Family(enum.Enum):
    """A family of endpoints. The value is the beginning of its paths."""

    LEGACY = ""
    V2 = "/api/v2"

    def time(self, moment: datetime) -> str | int:
        """Return an aware datetime as this family writes it."""
        return to_unix_ns(moment) if self is Family.V2 else format_rfc3339(moment)

    def encode(self, value: Any) -> Any:
        """Return an object of the world, and everything inside it, as this family writes it.

        Custom data is never changed.
        """
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if self is Family.V2:
            return {name: inner if name == "custom" else self._encode(name, inner) for name, inner in value.items()}
        encoded = {name: self._encode(name, inner) for name, inner in value.items() if name != "custom"}
        # The field of the schema wins over a custom one of its name, as the service reserves those names.
        return {**(value.get("custom") or {}), **encoded}

    def _encode(self, name: str, value: Any) -> Any:
        if self is Family.V2 and name in TIME_FIELDS and isinstance(value, str):
            return to_unix_ns(parse_rfc3339(value))
        if name in MAPS and isinstance(value, dict):
            return {key: self.encode(inner) for key, inner in value.items()}
        return self.encode(value)
