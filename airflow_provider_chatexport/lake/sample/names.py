"""What a sample keeps: names of the service's API, which are the same for every app.

Everything here is a closed list. A name or value that is on none of them is replaced, so a list that lacks a name of
the service makes a sample less readable and never less private.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Final

from airflow_provider_chatexport.core.entities import (
    ALIASES,
    ENVELOPE_NAME_KEYS,
    ENVELOPE_PAYLOAD_KEYS,
    OTHER_NAMES,
)
from airflow_provider_chatexport.lake.schema.tables import TABLES

# Names of properties in the API description, object by object; one that several objects have is named once.
_API_KEYS: Final = """
    message: id cid channel_type channel_id channel_cid type text html mml user user_id parent_id quoted_message
        quoted_message_id show_in_channel reply_count deleted_reply_count thread_participants attachments
        latest_reactions own_reactions reactions reaction_counts reactions_count reaction_scores reaction_groups
        mentioned_users mentioned_users_ids mentioned_group_ids mentioned_groups mentioned_roles
        mentioned_channel_members mentioned_channel mentioned_here pinned pinned_at pinned_by pinned_by_id pin_expires
        silent shadowed deleted_for_me restricted_visibility command args poll_id poll i18n image_labels moderation
        member reminder draft shared_location created_at updated_at deleted_at message_text_updated_at custom
        before_message_send_failed skip_push
    reaction: message_id score emoji_code
    reaction group: count sum_scores first_reaction_at last_reaction_at latest_reactions_by
    attachment: title title_link image_url thumb_url asset_url og_scrape_url author_name author_link author_icon color
        fallback pretext footer footer_icon original_width original_height actions fields giphy latitude longitude
        stopped_sharing file_size mime_type duration waveform_data
    action, field, image: name value style short fixed_height fixed_height_downsampled fixed_height_still fixed_width
        fixed_width_downsampled fixed_width_still original frames height size url width
    channel: team created_by created_by_id member_ids member_count message_count frozen disabled blocked hidden muted
        cooldown auto_translation_enabled auto_translation_language filter_tags own_capabilities config last_message_at
        hide_messages_before mute_expires_at truncated_at truncated_by truncated_by_id members image description
        watcher_count watchers pinned_messages threads pending_messages active_live_locations membership
        push_preferences unread_count last_updated
    channel config: automod automod_behavior automod_thresholds connect_events count_messages custom_events
        delivery_events mark_messages_pending max_message_length message_retention mutes polls push_notifications quotes
        read_events reminders replies search shared_locations skip_last_msg_update_for_system_msgs typing_events uploads
        url_enrichment user_message_reminders commands blocklist blocklist_behavior behavior partition_size
        partition_ttl push_level allowed_flag_reasons blocklists chat_preferences grants set explicit spam toxic flag
        block channel_mentions default_preference direct_mentions distinct_channel_messages group_mentions here_mentions
        role_mentions thread_replies
    member: channel_role role status is_moderator banned shadow_banned ban_expires ban_from_future_channels
        future_channel_ban_expires invited invite_accepted_at invite_rejected_at notifications_muted deleted_messages
        archived_at hide_channel last_read
    read: unread_messages last_read_message_id last_delivered_at last_delivered_message_id first_unread_message_id
    user: language teams teams_role online invisible bypass_moderation avg_response_time blocked_user_ids devices
        privacy_settings last_active last_engaged_at deactivated_at revoke_tokens_issued_before channel_mutes user_mutes
        latest_hidden_channels total_unread_count unread_channels unread_threads typing_indicators read_receipts
        delivery_receipts enabled disabled_until deactivated
    device: push_provider push_provider_type push_provider_name disabled_reason hardware_id voip
    mute, ban: target expires shadow reason banned_by
    poll: allow_answers allow_user_suggested_options answers_count enforce_unique_vote is_closed latest_answers
        latest_votes latest_votes_by_option max_votes_allowed options own_votes vote_count vote_counts_by_option
        voting_visibility option_id answer_text is_answer
    moderation: action original_text text_harms image_harms blocklist_matched blocklists_matched
        semantic_filter_matched platform_circumvented
    draft, reminder, location: parent_message remind_at created_by_device_id end_at
    thread: active_participant_count created_by_user_id parent_message_id participant_count latest_replies last_read_at
        last_thread_message_at left_thread_at thread_id metadata
    user group: app_pk group_id is_admin team_id
    call: backstage captioning current_session_id recording transcribing translating egress ingress settings ended_at
        starts_at join_ahead_time_seconds routing_number session thumbnails participants accepted_by missed_by
        rejected_by participants_count_by_role anonymous_participant_count live_started_at live_ended_at started_at
        timer_ends_at joined_at user_session_id call_cid broadcasting hls rtmps
"""

# Keys that an export may have, flat or inside another object. All others are an app's own.
KEYS: Final = frozenset(
    set(re.sub(r"^ +[a-z, ]+:", "", _API_KEYS, flags=re.MULTILINE).split())
    | {key for table in TABLES for key in table.known_keys}
    | {*ALIASES, *OTHER_NAMES, *ENVELOPE_NAME_KEYS, *ENVELOPE_PAYLOAD_KEYS}
)

# The types that every app has; an app's own types are replaced.
CHANNEL_TYPES: Final = frozenset({"messaging", "livestream", "team", "gaming", "commerce"})
_ENTITIES: Final = frozenset(
    {*ALIASES, *OTHER_NAMES, "ban", "block", "channel_mute", "flag", "mute", "poll_option", "reminder", "thread"}
)
_MESSAGE_TYPES: Final = frozenset({"regular", "ephemeral", "error", "reply", "system", "deleted"})
# Those of the service's own UI kits.
_REACTION_TYPES: Final = frozenset({"like", "love", "haha", "wow", "sad", "angry"})
_ATTACHMENT_TYPES: Final = frozenset({"image", "video", "audio", "file", "giphy", "link", "article", "voiceRecording"})
_TYPES: Final = CHANNEL_TYPES | _ENTITIES | _MESSAGE_TYPES | _REACTION_TYPES | _ATTACHMENT_TYPES
_ROLES: Final = frozenset(
    {"user", "admin", "guest", "anonymous", "moderator", "member", "owner", "channel_member", "channel_moderator"}
    | {"global_admin", "global_moderator"}
)
_COMMANDS: Final = frozenset({"giphy", "ban", "unban", "mute", "unmute", "flag"})
_BEHAVIORS: Final = frozenset({"flag", "block", "shadow_block", "bounce", "remove", "keep", "disabled", "simple", "AI"})
_PUSH_PROVIDERS: Final = frozenset({"firebase", "apn", "huawei", "xiaomi"})

# Key -> the service's values of it. Any other value is replaced.
VALUES: Final[Mapping[str, frozenset[str]]] = {
    **dict.fromkeys((*ENVELOPE_NAME_KEYS, "channel_type"), _TYPES),
    **dict.fromkeys(("role", "channel_role"), _ROLES),
    "status": frozenset({"member", "invited", "pending", "accepted", "rejected"}),
    **dict.fromkeys(("command", "commands"), _COMMANDS),
    **dict.fromkeys(("action", "automod", "automod_behavior", "blocklist_behavior", "behavior"), _BEHAVIORS),
    **dict.fromkeys(("push_provider", "push_provider_type"), _PUSH_PROVIDERS),
    "message_retention": frozenset({"infinite"}),
    "voting_visibility": frozenset({"public", "anonymous"}),
}

# Text that stands for a flag or for the smallest numbers, whatever its key: a column of flags takes it.
FLAGS: Final = frozenset({"", "0", "1", "true", "false", "yes", "no", "t", "f", "y", "n"})


class Role(enum.Enum):
    """What the value of a key is, as far as that decides how it is replaced."""

    ID = "id"  # of a user, a message, a channel, ...: the same everywhere in the file
    TYPE = "type"  # one of a list, which may be the app's own: the same everywhere in the file
    TEXT = "text"  # what people wrote: different every time
    TIME = "time"  # a whole number of nanoseconds too
    ANY = "any"  # by its form


_IDS: Final = frozenset(
    {"id", "cid", "user", "created_by", "pinned_by", "truncated_by", "banned_by", "mentioned_users"}
    | {"thread_participants", "restricted_visibility", "deleted_messages", "team", "teams"}
)
_ID_SUFFIXES: Final = ("_id", "_ids", "_cid", "_cids", "Id", "Ids")
_TEXTS: Final = frozenset({"text", "html", "mml", "fallback", "pretext", "footer", "title", "description", "reason"})
_TIMES: Final = frozenset({"last_read", "last_active", "expires", "last_updated"})
_TIME_SUFFIXES: Final = ("_at", "_expires", "_until", "_before")
# Objects whose keys are values: kinds of reactions, or ids.
_MAPS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("reaction_counts", "reaction_scores", "reaction_groups"), Role.TYPE),
    **dict.fromkeys(("mentioned_channel_members", "latest_votes_by_option", "vote_counts_by_option"), Role.ID),
    **dict.fromkeys(("teams_role", "image_labels", "participants_count_by_role"), Role.ID),
}


def role_of(key: str) -> Role:
    """Return the role of a key's values."""
    if key in _IDS or key.endswith(_ID_SUFFIXES):
        return Role.ID
    if key in VALUES:
        return Role.TYPE
    if key in _TEXTS or key.endswith("_text"):
        return Role.TEXT
    if key in _TIMES or key.endswith(_TIME_SUFFIXES):
        return Role.TIME
    return Role.ANY


def role_of_keys(key: str) -> Role | None:
    """Return the role of the keys of an object under this key, or None if they are names."""
    return _MAPS.get(key)


# What is kept of a link: how it is read, how it is signed, and when it ends.
SCHEMES: Final = frozenset({"http", "https"})
FILE_ENDINGS: Final = frozenset(
    {"png", "jpg", "jpeg", "gif", "webp", "svg", "heic", "mp4", "mov", "webm", "mp3", "m4a", "aac", "wav", "ogg"}
    | {"pdf", "doc", "docx", "xls", "xlsx", "csv", "txt", "zip", "html"}
)
LINK_PARAMETERS: Final = frozenset(
    {"expires", "signature", "policy", "key-pair-id", "sig", "se", "sv", "sp", "sr", "token", "exp"}
    | {f"x-amz-{part}" for part in ("algorithm", "credential", "date", "expires", "security-token", "signature")}
    | {f"x-goog-{part}" for part in ("algorithm", "credential", "date", "expires", "signature")}
    | {"x-amz-signedheaders", "x-goog-signedheaders", "h", "w", "oh", "ow", "ro", "crop", "resize", "dl", "name", "v"}
)
# When a link ends, in Unix seconds, and how many seconds it lives, which say nothing about anybody.
END_PARAMETERS: Final = frozenset({"expires", "exp"})
LIFETIME_PARAMETERS: Final = frozenset({"x-amz-expires", "x-goog-expires"})

TAGS: Final = frozenset(
    {"a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "hr", "img", "li", "ol", "p", "pre"}
    | {"span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
)

# What people wrote becomes this.
WORDS: Final = (
    *("lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit", "sed", "eiusmod", "tempor"),
    *("incididunt", "labore", "dolore", "magna", "aliqua", "enim", "minim", "veniam", "quis", "nostrud", "ullamco"),
    *("laboris", "nisi", "aliquip", "commodo", "consequat", "duis", "aute", "irure", "voluptate", "velit", "esse"),
    *("cillum", "fugiat", "nulla", "pariatur", "excepteur", "sint", "occaecat", "cupidatat", "non", "proident", "sunt"),
    *("culpa", "qui", "officia", "deserunt", "mollit", "anim", "laborum", "perspiciatis", "unde", "omnis", "iste"),
    *("natus", "quae", "voluptatem", "accusantium", "doloremque", "totam", "rem", "aperiam", "eaque"),
)
