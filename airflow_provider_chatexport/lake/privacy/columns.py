"""What each column may say about a person: the one list behind pseudonyms and the removal of a person.

Every column has to be in it; a test checks that.
"""

from __future__ import annotations

import enum
from typing import Final

from airflow_provider_chatexport.lake.schema.tables import MESSAGES, USER_EXPORT_MESSAGES, USER_EXPORT_USERS, USERS
from airflow_provider_chatexport.lake.schema.types import Column, Table


class PersonalData(enum.Enum):
    """What a column may say about a person."""

    NOTHING = "nothing"  # times, counts, flags, ids of things
    USER_ID = "user id"
    USER_IDS = "user ids"
    MESSAGE_ID = "message id"  # may start with the author's id
    PROFILE = "about"  # a person's own description: name, picture, devices
    CONTENT = "written"  # by people, for people
    FREE_FORM = "mixed"  # JSON or raw text that may hold whole users, and anything that people wrote


_COLUMNS: Final[dict[PersonalData, str]] = {
    PersonalData.USER_ID: "user_id pinned_by_id created_by_id truncated_by_id export_user_id",
    PersonalData.USER_IDS: "thread_participant_ids mentioned_user_ids restricted_visibility blocked_user_ids "
    "member_ids",
    PersonalData.MESSAGE_ID: "parent_id quoted_message_id message_id last_read_message_id last_delivered_message_id",
    PersonalData.CONTENT: "text html mml i18n title title_link fallback pretext footer image_url thumb_url asset_url "
    "og_scrape_url author_name author_link author_icon footer_icon actions fields giphy image_labels command",
    PersonalData.FREE_FORM: "poll member mentioned_groups reminder draft shared_location moderation custom data raw "
    "attachments latest_reactions reaction_groups mentioned_channel_members channel_mutes user_mutes",
    PersonalData.NOTHING: "cid channel_type channel_id type show_in_channel reply_count deleted_reply_count "
    "reaction_counts reaction_scores reactions_missing replies_missing attachment_count mentioned_group_ids "
    "mentioned_roles mentioned_channel mentioned_here pinned pinned_at pin_expires silent shadowed deleted_for_me "
    "poll_id created_at updated_at message_text_updated_at deleted_at score message_created_at position color "
    "original_width original_height team member_count message_count frozen disabled blocked hidden muted cooldown "
    "auto_translation_enabled auto_translation_language filter_tags own_capabilities config last_message_at "
    "hide_messages_before mute_expires_at truncated_at channel_role role status is_moderator banned shadow_banned "
    "ban_from_future_channels ban_expires future_channel_ban_expires invited invite_accepted_at invite_rejected_at "
    "notifications_muted hide_channel url_expires_at deleted_messages archived_at last_read unread_messages "
    "last_delivered_at teams teams_role invisible online bypass_moderation last_active last_engaged_at deactivated_at "
    "revoke_tokens_issued_before entity line_number byte_offset reason raw_encoding raw_size_bytes _exported_at "
    "_load_id",
    PersonalData.PROFILE: "image language avg_response_time devices privacy_settings push_notifications",
}
_PERSONAL_DATA: Final = {name: kind for kind, names in _COLUMNS.items() for name in names.split()}
_OF_USERS: Final = (USERS.name, USER_EXPORT_USERS.name)
_OF_MESSAGES: Final = (MESSAGES.name, USER_EXPORT_MESSAGES.name)


def personal_data(table: Table, column: Column) -> PersonalData:
    """Return what a column may say about a person.

    :raises KeyError: the column is not in the list.
    """
    if column.name == "id":
        if table.name in _OF_USERS:
            return PersonalData.USER_ID
        return PersonalData.MESSAGE_ID if table.name in _OF_MESSAGES else PersonalData.NOTHING
    if column.name == "name":
        return PersonalData.PROFILE if table.name in _OF_USERS else PersonalData.CONTENT
    return _PERSONAL_DATA[column.name]


def columns(table: Table, *kinds: PersonalData) -> list[Column]:
    """Return the table's columns of these kinds, without promoted ones: those are computed from ``custom``."""
    return [column for column in table if not column.promoted and personal_data(table, column) in kinds]
