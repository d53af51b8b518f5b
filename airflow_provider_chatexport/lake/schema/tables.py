"""THE table registry: every table and column, its type, what it means, and which field of the service it comes from.

The staging SQL, the Arrow schema of the files, the views with their comments and the table reference are all made from
it. Field names and meanings are those of the service's API objects (Message, Channel, Member, User, Reaction,
Attachment, Read) in its API description.

A key that no column reads goes into ``custom``. Some keys are known and not kept: ``own_reactions`` (always empty for a
server), all of ``quoted_message`` but its id (a copy of another message), and ``latest_reactions``, ``user``, the
``members`` of a channel and the like (they become rows of other tables).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.schema.columns import (
    boolean,
    by_reaction_type,
    channel_of,
    computed,
    first_of,
    id_in,
    id_of,
    ids_of,
    integer,
    is_something,
    json_text,
    link_end,
    loses_id,
    reference,
    text,
    text_list,
    time,
)
from airflow_provider_chatexport.lake.schema.sql import UNSET_TIME
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData, Placement, Table

# The version of the files' columns. A new column names the version that adds it (``Column.added_in``). In the views it
# is null for files of older versions.
SCHEMA_VERSION: Final = 4
# From this version on, files of event tables have the day of each row. Before, only the name of their folder had it.
DAYS_SINCE_VERSION: Final = 3
# From this version on, JSON is plain text in the files. Before, it had Arrow's type for JSON.
TEXT_SINCE_VERSION: Final = 4

CUSTOM: Final = computed(
    "custom",
    Kind.JSON,
    "Every key that has no column, as one JSON object, whether the export has it in the object itself or under "
    "`custom`; `{}` if there is none. A value that its own column cannot hold is kept here, under its key. Whole "
    "numbers keep every digit; other numbers are written as the nearest double.",
    personal=PersonalData.JSON,
)
EXPORTED_AT: Final = computed(
    "_exported_at",
    Kind.TIME,
    "When the service created the export that the row comes from (`created_at` of the task).",
)
LOAD_ID: Final = computed(
    "_load_id", Kind.TEXT, "The load that wrote the row; see the view `loads`.", personal=PersonalData.NOTHING
)
_TRAILER: Final = (CUSTOM, EXPORTED_AT, LOAD_ID)

_CID = channel_of("Channel, as `type:id`.")


def _added(column: Column) -> Column:
    """Return a column that version 2 of the schema added."""
    return replace(column, added_in=2)


_REACTIONS_MISSING: Final = computed(
    "reactions_missing",
    Kind.INT,
    "How many reactions of `reaction_counts` or `reaction_groups` the export does not contain; 0 if `reactions` "
    "has all of them.",
    default="0",
)

_REPLIES_MISSING: Final = _added(
    Column(
        name="replies_missing",
        kind=Kind.INT,
        doc="How many of the replies in `reply_count` the load does not contain; null if the export has no "
        "`reply_count`. Replies in other windows count as missing here; the macro `missing_replies` counts over the "
        "whole lake.",
        sql="_reply_count * 0",
    )
)


_QUOTED_IDS: Final = tuple((key, id_in(key)) for key in ("quoted_message_id", "quoted_message"))
_QUOTED: Final = first_of(_QUOTED_IDS)
_POLL_IDS: Final = tuple((key, id_in(key)) for key in ("poll_id", "poll"))

MESSAGES: Final = Table(
    name="messages",
    doc="One row per message, as it is in the newest export that covers its moment.",
    placement=Placement.EVENT,
    entity=Entity.MESSAGE,
    key=("id",),
    sort=("cid", "created_at", "id"),
    bloom=("id", "user_id", "parent_id", "cid"),
    plain_encoded=("id", "text", "html", "custom"),
    day_column="created_at",
    ignored_keys=("latest_reactions", "own_reactions"),
    nested_lists=("attachments", "latest_reactions"),
    user_paths=("user", "pinned_by", "quoted_message.user", "poll.created_by", "member.user", "reminder.user"),
    user_list_paths=(
        *("mentioned_users", "thread_participants", "quoted_message.mentioned_users"),
        "reaction_groups.*.latest_reactions_by[*].user",
    ),
    columns=(
        text("id", "Message id, unique in the app.", PersonalData.MESSAGE_ID),
        _CID,
        Column(
            name="channel_type",
            kind=Kind.TEXT,
            doc="Channel type: `cid` before its first colon.",
            personal=PersonalData.NOTHING,
            sql="split_part(_cid, ':', 1)",
        ),
        Column(
            name="channel_id",
            kind=Kind.TEXT,
            doc="Channel id: `cid` after its first colon.",
            personal=PersonalData.NOTHING,
            sql="substr(_cid, strpos(_cid, ':') + 1)",
        ),
        id_of("user_id", "user", "Author.", or_field="user_id"),
        text("type", "regular, reply, system, ephemeral, error or deleted.", PersonalData.NOTHING),
        text(
            "text",
            "The text as written (markdown). Soft-deleted messages keep it, unless the export cleared it.",
            PersonalData.CONTENT,
        ),
        text("html", "The text as the service rendered it.", PersonalData.CONTENT),
        reference("parent_id", "Message that this one replies to in a thread.", PersonalData.MESSAGE_ID),
        Column(
            name="quoted_message_id",
            kind=Kind.TEXT,
            doc="Message that this one quotes.",
            personal=PersonalData.MESSAGE_ID,
            sql=_QUOTED,
            alternatives=_QUOTED_IDS,
            reads=("quoted_message", "quoted_message_id"),
            fails_on=(
                ("quoted_message_id", loses_id("quoted_message_id")),
                (
                    "quoted_message",
                    f"""CASE WHEN d.quoted_message IS NOT NULL THEN
                        ({is_something("quoted_message")} AND ({_QUOTED}) IS NULL)
                        OR ({id_in("quoted_message")}) <> ({id_in("quoted_message_id")}) END""",
                ),
            ),
        ),
        boolean("show_in_channel", "A thread reply that is shown in the channel as well."),
        integer("reply_count", "How many replies its thread has."),
        integer("deleted_reply_count", "How many deleted replies its thread has."),
        _REPLIES_MISSING,
        ids_of("thread_participant_ids", "thread_participants", "Users who replied in its thread."),
        by_reaction_type("reaction_counts", "Reactions by type: count.", "count"),
        by_reaction_type("reaction_scores", "Reactions by type: sum of scores.", "sum_scores"),
        json_text(
            "reaction_groups", "Reactions by type: count, sum of scores, first and last time.", PersonalData.JSON
        ),
        _REACTIONS_MISSING,
        Column(
            name="attachment_count",
            kind=Kind.INT,
            doc="How many attachments the message has; they are rows of `attachments`.",
            sql="coalesce(json_array_length(d.attachments), 0)",
            reads=("attachments",),
            default="0",
        ),
        ids_of("mentioned_user_ids", "mentioned_users", "Users mentioned in the text.", or_field="mentioned_users_ids"),
        text_list(
            "mentioned_group_ids",
            "User groups mentioned in the text.",
            PersonalData.NOTHING,
            or_ids_in="mentioned_groups",
        ),
        json_text("mentioned_groups", "User groups mentioned in the text, as complete objects.", PersonalData.JSON),
        text_list("mentioned_roles", "Roles mentioned in the text.", PersonalData.NOTHING),
        json_text(
            "mentioned_channel_members",
            "Memberships of the users mentioned, by user id: role, custom fields.",
            PersonalData.JSON_BY_USER_ID,
        ),
        boolean("mentioned_channel", "The whole channel is mentioned."),
        boolean("mentioned_here", "All who are online are mentioned."),
        replace(
            boolean("pinned", "Pinned in the channel. True if the export has only the time when it was pinned."),
            otherwise=f"CASE WHEN _pinned_at > {UNSET_TIME} THEN true END",
        ),
        time("pinned_at", "When it was pinned."),
        id_of("pinned_by_id", "pinned_by", "Who pinned it.", or_field="pinned_by_id"),
        time("pin_expires", "When the pin ends."),
        boolean("silent", "Sent without raising unread counts."),
        boolean("shadowed", "By a shadow-banned user: shown to its author only."),
        boolean("deleted_for_me", "Deleted for one user only."),
        _added(text("status", "State of delivery, such as `received`, if the export says.", PersonalData.NOTHING)),
        text_list("restricted_visibility", "The only users who may see it; empty if all may.", PersonalData.USER_IDS),
        text("command", "Slash command that created it.", PersonalData.CONTENT),
        text("mml", "Markup of a command's answer.", PersonalData.CONTENT),
        replace(
            reference("poll_id", "Poll in the message.", PersonalData.NOTHING),
            sql=first_of(_POLL_IDS),
            alternatives=_POLL_IDS,
            reads=("poll_id", "poll"),
        ),
        json_text("poll", "The poll, as a complete object.", PersonalData.JSON),
        json_text("i18n", "Translations: `language`, `<lang>_text`.", PersonalData.CONTENT),
        json_text("image_labels", "Labels that moderation gave to images.", PersonalData.CONTENT),
        json_text("moderation", "Moderation's verdict: action, original text, harms.", PersonalData.JSON),
        json_text("member", "The author's membership when it was sent: role and custom fields.", PersonalData.JSON),
        json_text("shared_location", "Location that it shares.", PersonalData.JSON),
        json_text("reminder", "Reminder set on it.", PersonalData.JSON),
        json_text("draft", "Draft of a reply to it.", PersonalData.JSON),
        time("created_at", "When it was sent. Decides its day, and the folder of its month."),
        time("updated_at", "When it was last changed in any way."),
        time("message_text_updated_at", "When its text was last edited."),
        time("deleted_at", "When it was soft-deleted. Hard-deleted messages are not in the table."),
        *_TRAILER,
    ),
)

_MESSAGE_CREATED_AT = computed(
    "message_created_at",
    Kind.TIME,
    "When the message was sent; if the export does not contain it, when the user reacted. Decides the day.",
)

REACTIONS: Final = Table(
    name="reactions",
    doc="One row per reaction of a user to a message.",
    placement=Placement.EVENT,
    entity=Entity.REACTION,
    key=("message_id", "user_id", "type"),
    sort=("cid", "message_created_at", "message_id", "user_id", "type"),
    bloom=("message_id", "user_id", "cid"),
    plain_encoded=("message_id", "custom"),
    day_column="message_created_at",
    user_paths=("user",),
    columns=(
        text("message_id", "Message reacted to.", PersonalData.MESSAGE_ID),
        channel_of("Channel of the message, as `type:id`; null if the export does not say."),
        id_of("user_id", "user", "Who reacted.", or_field="user_id"),
        text("type", "Kind of reaction, such as `love`.", PersonalData.NOTHING),
        integer("score", "Score, 1 unless the app counts differently."),
        time("created_at", "When the user reacted."),
        time("updated_at", "When the reaction was last changed."),
        _MESSAGE_CREATED_AT,
        *_TRAILER,
    ),
)

ATTACHMENTS: Final = Table(
    name="attachments",
    doc="One row per attachment of a message, in the message's order.",
    placement=Placement.EVENT,
    key=("message_id", "position"),
    sort=("cid", "message_created_at", "message_id", "position"),
    bloom=("message_id", "cid"),
    plain_encoded=("message_id", "custom"),
    day_column="message_created_at",
    columns=(
        computed("message_id", Kind.TEXT, "Message that it belongs to.", personal=PersonalData.MESSAGE_ID),
        computed("cid", Kind.TEXT, "Channel of the message, as `type:id`.", personal=PersonalData.NOTHING),
        computed("position", Kind.INT, "Position in the message, from 0."),
        text("type", "image, video, audio, file, giphy, ... or the app's own.", PersonalData.NOTHING),
        text("title", "Title.", PersonalData.CONTENT),
        text("title_link", "Link of the title.", PersonalData.CONTENT),
        text("text", "Text or description.", PersonalData.CONTENT),
        text("image_url", "Image.", PersonalData.CONTENT),
        text("thumb_url", "Thumbnail.", PersonalData.CONTENT),
        text("asset_url", "File, video or audio.", PersonalData.CONTENT),
        _added(
            Column(
                name="url_expires_at",
                kind=Kind.TIME,
                doc="When the first of its links to `image_url`, `thumb_url` and `asset_url` ends, by the signature in "
                "the link; null if none says. Links to uploaded files end after 14 days, and the files themselves are "
                "not in an export: only an export made later has new links.",
                sql=link_end(("image_url", "thumb_url", "asset_url")),
            )
        ),
        text("og_scrape_url", "Page that the preview was made from.", PersonalData.CONTENT),
        text("author_name", "Author or site name.", PersonalData.CONTENT),
        text("author_link", "Link of the author's name.", PersonalData.CONTENT),
        text("author_icon", "Author's icon.", PersonalData.CONTENT),
        text("color", "Colour of the border.", PersonalData.NOTHING),
        text("fallback", "Plain text for clients that cannot show it.", PersonalData.CONTENT),
        text("pretext", "Text above it.", PersonalData.CONTENT),
        text("footer", "Footer.", PersonalData.CONTENT),
        text("footer_icon", "Footer's icon.", PersonalData.CONTENT),
        integer("original_width", "Width of the image, pixels."),
        integer("original_height", "Height of the image, pixels."),
        json_text("actions", "Buttons.", PersonalData.CONTENT),
        json_text("fields", "Short titled values.", PersonalData.CONTENT),
        json_text("giphy", "Renditions of a GIF.", PersonalData.CONTENT),
        computed("message_created_at", Kind.TIME, "When the message was sent. Decides the day."),
        *_TRAILER,
    ),
)

CHANNELS: Final = Table(
    name="channels",
    doc="One row per channel, as it is in the newest export that contains it.",
    placement=Placement.SNAPSHOT,
    entity=Entity.CHANNEL,
    key=("cid",),
    sort=("cid",),
    ignored_keys=("members",),
    nested_lists=("members",),
    user_paths=("created_by", "truncated_by"),
    columns=(
        channel_of("Channel, as `type:id`.", own_type_and_id=True),
        replace(
            text("type", "Channel type.", PersonalData.NOTHING),
            sql="coalesce(nullif(d.type, ''), split_part(_cid, ':', 1))",
        ),
        replace(
            text("id", "Channel id, unique within its type.", PersonalData.NOTHING),
            sql="coalesce(nullif(d.id, ''), substr(_cid, strpos(_cid, ':') + 1))",
        ),
        Column(
            name="name",
            kind=Kind.TEXT,
            doc="Display name, from the custom fields.",
            personal=PersonalData.CONTENT,
            sql="coalesce(json_extract_string(d.name, '$'), json_extract_string(d.custom, '$.name'))",
            reads=("name",),
            nested=True,
        ),
        text("team", "Team, in multi-tenant apps.", PersonalData.NOTHING),
        id_of("created_by_id", "created_by", "Who created it.", or_field="created_by_id"),
        _added(
            text_list(
                "member_ids",
                "Members of a channel that has no id of its own but consists of its members.",
                PersonalData.USER_IDS,
            )
        ),
        integer("member_count", "How many members it has."),
        integer("message_count", "How many messages it has, if the app counts them."),
        boolean("frozen", "Takes no new messages."),
        boolean("disabled", "Closed for all users."),
        boolean("blocked", "Blocked by the requesting user."),
        boolean("hidden", "Hidden for the requesting user."),
        boolean("muted", "Muted for the requesting user."),
        integer("cooldown", "Slow mode: seconds between two messages of a user."),
        boolean("auto_translation_enabled", "Messages are translated."),
        text("auto_translation_language", "Language translated to.", PersonalData.NOTHING),
        text_list("filter_tags", "Tags to filter by.", PersonalData.NOTHING),
        text_list("own_capabilities", "What the requesting user may do.", PersonalData.NOTHING),
        json_text("config", "Settings of the channel type, as they apply here.", PersonalData.NOTHING),
        time("created_at", "When it was created."),
        time("updated_at", "When it was last changed."),
        time("last_message_at", "Its newest message."),
        time("hide_messages_before", "Messages from before this time are hidden for the requesting user."),
        time("mute_expires_at", "When the mute ends."),
        time("truncated_at", "Messages from before this time are hidden: the channel was truncated."),
        id_of("truncated_by_id", "truncated_by", "Who truncated it.", or_field="truncated_by_id"),
        time("deleted_at", "When it was soft-deleted."),
        *_TRAILER,
    ),
)

MEMBERS: Final = Table(
    name="members",
    doc="One row per member of a channel, as the member is in the newest export that contains them.",
    placement=Placement.SNAPSHOT,
    entity=Entity.MEMBER,
    key=("cid", "user_id"),
    sort=("cid", "user_id"),
    # A row of ``reads``, if the export has no other for this member.
    staged=(time("last_read", "When they last read the channel."),),
    user_paths=("user",),
    columns=(
        _CID,
        id_of("user_id", "user", "The member.", or_field="user_id"),
        text("channel_role", "Role that decides permissions in the channel.", PersonalData.NOTHING),
        text("role", "Legacy role: owner, member, moderator, ...", PersonalData.NOTHING),
        text("status", "member, invited, rejected, ...", PersonalData.NOTHING),
        boolean("is_moderator", "Moderates the channel."),
        boolean("banned", "Banned from the channel."),
        boolean("shadow_banned", "Shadow-banned in the channel."),
        boolean("ban_from_future_channels", "Banned from the author's future channels."),
        time("ban_expires", "When the ban ends."),
        time("future_channel_ban_expires", "When the ban from future channels ends."),
        boolean("invited", "Was invited."),
        time("invite_accepted_at", "When the invitation was accepted."),
        time("invite_rejected_at", "When the invitation was rejected."),
        boolean("notifications_muted", "The member muted the channel."),
        _added(boolean("hide_channel", "The member hid the channel.")),
        _added(time("hide_messages_before", "Messages from before this time are hidden for the member.")),
        text_list("deleted_messages", "Messages deleted for this member only.", PersonalData.MESSAGE_IDS),
        time("archived_at", "When the member archived the channel."),
        time("pinned_at", "When the member pinned the channel."),
        time("created_at", "When they became a member."),
        time("updated_at", "When the membership was last changed."),
        time("deleted_at", "When the membership ended."),
        *_TRAILER,
    ),
)

READS: Final = Table(
    name="reads",
    doc="One row per user and channel: how far they have read. Exports that name everything by id say it in their "
    "members, and then only `last_read` is known.",
    placement=Placement.SNAPSHOT,
    entity=Entity.READ,
    key=("cid", "user_id"),
    sort=("cid", "user_id"),
    user_paths=("user",),
    columns=(
        _CID,
        id_of("user_id", "user", "The reader.", or_field="user_id"),
        time("last_read", "When they last read the channel."),
        reference("last_read_message_id", "The last message that they read.", PersonalData.MESSAGE_ID),
        integer("unread_messages", "Messages that they have not read."),
        time("last_delivered_at", "When a message last reached one of their devices."),
        reference(
            "last_delivered_message_id", "The last message that reached one of their devices.", PersonalData.MESSAGE_ID
        ),
        *_TRAILER,
    ),
)

USERS: Final = Table(
    name="users",
    doc="One row per user in any export, such as an author, a member or a mentioned user: the newest version.",
    placement=Placement.SNAPSHOT,
    entity=Entity.USER,
    key=("id",),
    sort=("id",),
    columns=(
        text("id", "User id.", PersonalData.USER_ID),
        text("name", "Display name.", PersonalData.PROFILE),
        text("role", "Role in the app.", PersonalData.NOTHING),
        text("image", "Avatar.", PersonalData.PROFILE),
        text("language", "Language.", PersonalData.PROFILE),
        text_list("teams", "Teams, in multi-tenant apps.", PersonalData.NOTHING),
        json_text("teams_role", "Role per team.", PersonalData.NOTHING),
        boolean("banned", "Banned from the app."),
        boolean("shadow_banned", "Shadow-banned in the app."),
        time("ban_expires", "When the ban ends."),
        boolean("invisible", "Shown as offline."),
        boolean("online", "Was online when exported."),
        boolean("bypass_moderation", "Not moderated."),
        integer("avg_response_time", "Average time to answer, seconds.", personal=PersonalData.PROFILE),
        text_list("blocked_user_ids", "Users whom they block.", PersonalData.USER_IDS),
        json_text("devices", "Push devices.", PersonalData.PROFILE),
        _added(json_text("channel_mutes", "Channels that they muted.", PersonalData.JSON)),
        _added(json_text("user_mutes", "Users whom they muted.", PersonalData.JSON)),
        json_text("privacy_settings", "Privacy settings.", PersonalData.PROFILE),
        json_text("push_notifications", "Push settings.", PersonalData.PROFILE),
        time("created_at", "When the user was created."),
        time("updated_at", "When the user was last changed."),
        time("last_active", "When the user was last active."),
        time("last_engaged_at", "When the user last took part."),
        time("deactivated_at", "When the user was deactivated."),
        time("deleted_at", "When the user was deleted."),
        time("revoke_tokens_issued_before", "Tokens issued before this time are void."),
        *_TRAILER,
    ),
)

# What a load counts over the messages of channels.
_COUNTED: Final = (_REACTIONS_MISSING, _REPLIES_MISSING)

_EXPORT_USER_ID: Final = computed(
    "export_user_id",
    Kind.TEXT,
    "The user who was exported. Only the newest export of each user is shown.",
    personal=PersonalData.USER_ID,
)


def _in_user_export(table: Table, name: str, doc: str, key: tuple[str, ...], extra: tuple[Column, ...] = ()) -> Table:
    """Return a table's like for exports of users: the same columns, and the user who was exported."""
    own = [column for column in table if column not in (*_TRAILER, *_COUNTED, _MESSAGE_CREATED_AT)]
    by_owner = {
        column.name: replace(
            column,
            sql=f"coalesce({column.sql}, {_EXPORT_USER_ID.name})",
            doc=f"{column.doc} The user who was exported, if the export does not say.",
        )
        for column in own
        if column.name == "user_id"
    }
    keeps = {column.name for column in extra}
    return replace(
        table,
        name=name,
        doc=doc,
        placement=Placement.SNAPSHOT,
        columns=(_EXPORT_USER_ID, *(by_owner.get(column.name, column) for column in own), *extra, *_TRAILER),
        key=(_EXPORT_USER_ID.name, *key),
        sort=tuple(dict.fromkeys((_EXPORT_USER_ID.name, "created_at", *key))),
        bloom=(_EXPORT_USER_ID.name, *key[:1]),
        ignored_keys=tuple(key for key in table.ignored_keys if key not in keeps),
        nested_lists=(),
        user_paths=(),
        user_list_paths=(),
        day_column=None,
        owned_by=_EXPORT_USER_ID.name,
    )


USER_EXPORT_USERS: Final = _in_user_export(
    USERS, "user_export_users", "One row per exported user, as the user is in their newest export.", ()
)
USER_EXPORT_MESSAGES: Final = _in_user_export(
    MESSAGES,
    "user_export_messages",
    "One row per message in a user's newest export, from any channel. These rows have no coverage, and are never rows "
    "of `messages`.",
    ("id",),
    (
        json_text("attachments", "Attachments, as complete objects.", PersonalData.JSON),
        json_text(
            "latest_reactions", "The latest reactions to it by any user, as complete objects.", PersonalData.JSON
        ),
    ),
)
USER_EXPORT_REACTIONS: Final = _in_user_export(
    REACTIONS,
    "user_export_reactions",
    "One row per reaction in a user's newest export. These rows are never rows of `reactions`.",
    ("message_id", "type"),
)

OTHER_ENTITIES: Final = Table(
    name="other_entities",
    doc="Well-formed lines of an entity that has no table of its own, whole: calls of a users export, say.",
    placement=Placement.LOG,
    sort=("entity", "line_number"),
    columns=(
        computed("entity", Kind.TEXT, "The entity's name, as the export has it.", personal=PersonalData.NOTHING),
        computed("cid", Kind.TEXT, "Channel that it belongs to, if the export says.", personal=PersonalData.NOTHING),
        computed("line_number", Kind.INT, "Line in the export file, from 1; in a v1 array, the element."),
        computed("data", Kind.JSON, "The complete object.", personal=PersonalData.WHOLE_OBJECT),
        EXPORTED_AT,
        LOAD_ID,
    ),
)

REJECTS: Final = Table(
    name="rejects",
    doc="Every line, or entity in a line, that could not become a row.",
    placement=Placement.LOG,
    sort=("line_number",),
    plain_encoded=("raw",),
    columns=(
        computed("line_number", Kind.INT, "Line in the export file, from 1; in a v1 array, the element."),
        computed(
            "byte_offset",
            Kind.INT,
            "Where the line starts (in an array, the object), in bytes from the start of the unpacked file.",
        ),
        computed("reason", Kind.TEXT, "Why it was rejected.", personal=PersonalData.NOTHING),
        computed(
            "raw",
            Kind.TEXT,
            "The line as it is in the file, or the object if the line holds many. Cut at 64 KB; base64 if it is not "
            "UTF-8.",
            personal=PersonalData.RAW_LINE,
        ),
        computed("raw_encoding", Kind.TEXT, "utf-8 or base64.", personal=PersonalData.NOTHING),
        computed("raw_size_bytes", Kind.INT, "Size of the line or object before the cut, in bytes."),
        EXPORTED_AT,
        LOAD_ID,
    ),
)

# Users come first: the exported user is the owner of the other rows.
_USER_EXPORTS: Final = (USER_EXPORT_USERS, USER_EXPORT_MESSAGES, USER_EXPORT_REACTIONS)
TABLES: Final = (
    *(MESSAGES, REACTIONS, ATTACHMENTS, CHANNELS, MEMBERS, READS, USERS),
    *_USER_EXPORTS,
    *(OTHER_ENTITIES, REJECTS),
)
TABLE_BY_NAME: Final = {table.name: table for table in TABLES}
# The table of each entity, by kind of export.
TABLE_BY_ENTITY: Final = {table.entity: table for table in TABLES if table.entity is not None and not table.owned_by}
USER_EXPORT_TABLE_BY_ENTITY: Final = {table.entity: table for table in _USER_EXPORTS if table.entity is not None}
ENTITY_TABLES: Final = (*TABLE_BY_ENTITY.values(), *USER_EXPORT_TABLE_BY_ENTITY.values())
# Column names of all tables in lower case, and the folders' keys. No folder above a lake may be named ``KEY=...``.
COLUMN_NAMES: Final = frozenset(
    name.lower()
    for table in TABLES
    for name in (table.date_column, table.folder_key, *(column.name for column in table))
)
