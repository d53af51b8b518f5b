"""THE table registry: every table and column, its type, what it means, and which field of the service it comes from.

The converter's SQL, the Arrow schema of the files, the views with their comments and the table reference are all made
from here. Field names and meanings: the service's API objects (Message, Channel, Member, User, Reaction, Attachment,
Read) as its API description names them.

A key of an object that no column reads goes into ``custom``, whole. Four keys are read and not kept: ``own_reactions``
(always empty for a server), ``quoted_message`` (a copy of another message), ``latest_reactions`` and ``user`` and their
like (rows of other tables).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_chatexport.core.entities import Entity

SCHEMA_VERSION: Final = 1


class Kind(enum.Enum):
    """How a column's value is had from the JSON field of the same name. The value is its DuckDB type."""

    TEXT = "VARCHAR"
    TIME = "TIMESTAMP WITH TIME ZONE"
    BOOL = "BOOLEAN"
    INT = "BIGINT"
    JSON = "JSON"
    TEXTS = "VARCHAR[]"
    DATE = "DATE"


class Placement(enum.Enum):
    """What decides the day folder of a row, and which of two rows wins."""

    EVENT = "event_date"  # the UTC day of the message; the truth rule over coverage decides
    SNAPSHOT = "export_date"  # the UTC day of the export; the newest row of a key wins
    LOG = "log"  # the UTC day of the export; every row stands for itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    :param field: the JSON key that it is read from; None for what the converter adds itself.
    :param sql: an expression over the object's fields ``d``, where reading the field and casting is not enough.
    :param reads: the JSON keys that ``sql`` reads, with JSON columns read as JSON text.
    """

    name: str
    kind: Kind
    doc: str
    field: str | None = None
    sql: str | None = None
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. ``key`` names the columns that tell two rows of one load apart; ``sort`` the order inside a file."""

    name: str
    doc: str
    placement: Placement
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    bloom: tuple[str, ...] = ()
    dictionary_off: tuple[str, ...] = ("custom",)
    entity: Entity | None = None
    unkept: tuple[str, ...] = ()
    placed_by: str | None = None

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    @property
    def partition(self) -> str:
        """The name of the day folder's key: ``event_date`` or ``export_date``."""
        return "event_date" if self.placement is Placement.EVENT else "export_date"

    @property
    def fields(self) -> dict[str, str]:
        """JSON keys that the converter reads, with the type to read them as. Nested values are read as JSON text."""
        read: dict[str, str] = {}
        for column in self.columns:
            if column.field is not None:
                read[column.field] = "VARCHAR" if column.kind is not Kind.JSON else "JSON"
            read.update(dict.fromkeys(column.reads, "JSON"))
        return read

    @property
    def known_keys(self) -> tuple[str, ...]:
        """JSON keys that do not belong into ``custom``."""
        return (*self.fields, *(key for key in self.unkept if key not in self.fields), "custom")


def _text(name: str, doc: str, field: str | None = None) -> Column:
    return Column(name=name, kind=Kind.TEXT, doc=doc, field=field or name)


def _time(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.TIME, doc=doc, field=name)


def _bool(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.BOOL, doc=doc, field=name)


def _int(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.INT, doc=doc, field=name)


def _json(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.JSON, doc=doc, field=name)


def _texts(name: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.TEXTS, doc=doc, sql=f"json_extract_string(d.{name}, '$[*]')", reads=(name,))


def _ids_of(name: str, field: str, doc: str) -> Column:
    return Column(name=name, kind=Kind.TEXTS, doc=doc, sql=f"json_extract_string(d.{field}, '$[*].id')", reads=(field,))


def _id_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """The id of an embedded object, or of what stands in its place as a plain id, or of the plain id beside it."""
    found = [
        f"json_extract_string(d.{field}, '$.id')",
        f"CASE WHEN json_type(d.{field}) = 'VARCHAR' THEN json_extract_string(d.{field}, '$') END",
    ]
    if or_field:
        found.append(f"json_extract_string(d.{or_field}, '$')")
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=f"coalesce({', '.join(found)})",
        reads=(field, or_field) if or_field else (field,),
    )


def _made(name: str, kind: Kind, doc: str) -> Column:
    return Column(name=name, kind=kind, doc=doc)


CUSTOM: Final = _made(
    "custom",
    Kind.JSON,
    "Every key that this schema does not know, as one JSON object, whether it stood flat in the object or under "
    "`custom`; `{}` where there is none.",
)
EXPORTED_AT: Final = _made(
    "_exported_at",
    Kind.TIME,
    "When the service made the export that said so (the task's own created_at).",
)
LOAD_ID: Final = _made("_load_id", Kind.TEXT, "The load that wrote the row; see the view `loads`.")
_TRAILER: Final = (CUSTOM, EXPORTED_AT, LOAD_ID)

_CID = _text("cid", "Channel, as `type:id`.")

MESSAGES: Final = Table(
    name="messages",
    doc="One row per message, as the newest export that covers its moment tells it.",
    placement=Placement.EVENT,
    entity=Entity.MESSAGE,
    key=("id",),
    sort=("cid", "created_at", "id"),
    bloom=("id", "user_id", "parent_id"),
    dictionary_off=("id", "text", "html", "custom"),
    placed_by="created_at",
    unkept=("latest_reactions", "own_reactions", "quoted_message"),
    columns=(
        _text("id", "Message id, unique in the app."),
        _CID,
        Column(
            name="channel_type",
            kind=Kind.TEXT,
            doc="Channel type: `cid` before its first colon.",
            sql="split_part(d.cid, ':', 1)",
        ),
        Column(
            name="channel_id",
            kind=Kind.TEXT,
            doc="Channel id: `cid` after its first colon.",
            sql="substr(d.cid, strpos(d.cid, ':') + 1)",
        ),
        _id_of("user_id", "user", "Author.", or_field="user_id"),
        _text("type", "regular, reply, system, ephemeral, error or deleted."),
        _text("text", "The text as written (markdown); of a soft-deleted message too, unless the export cleared it."),
        _text("html", "The text as the service rendered it."),
        _text("parent_id", "Message that this one replies to in a thread."),
        _text("quoted_message_id", "Message that this one quotes."),
        _bool("show_in_channel", "A thread reply that is shown in the channel as well."),
        _int("reply_count", "Replies in this message's thread."),
        _int("deleted_reply_count", "Deleted replies in this message's thread."),
        _ids_of("thread_participant_ids", "thread_participants", "Users who replied in this message's thread."),
        _json("reaction_counts", "Reactions by type: count."),
        _json("reaction_scores", "Reactions by type: sum of scores."),
        _json("reaction_groups", "Reactions by type: count, sum of scores, first and last time."),
        Column(
            name="attachment_count",
            kind=Kind.INT,
            doc="Attachments of this message; they are rows of `attachments`.",
            sql="coalesce(json_array_length(d.attachments), 0)",
            reads=("attachments",),
        ),
        _ids_of("mentioned_user_ids", "mentioned_users", "Users mentioned in the text."),
        _texts("mentioned_group_ids", "User groups mentioned in the text."),
        _json("mentioned_groups", "User groups mentioned in the text, whole."),
        _texts("mentioned_roles", "Roles mentioned in the text."),
        _bool("mentioned_channel", "The whole channel is mentioned."),
        _bool("mentioned_here", "All who are online are mentioned."),
        _bool("pinned", "Pinned in the channel."),
        _time("pinned_at", "When it was pinned."),
        _id_of("pinned_by_id", "pinned_by", "Who pinned it."),
        _time("pin_expires", "When the pin ends."),
        _bool("silent", "Sent without raising unread counts."),
        _bool("shadowed", "By a shadow-banned user: shown to its author only."),
        _bool("deleted_for_me", "Deleted for one user only."),
        _texts("restricted_visibility", "Users who alone may see it; empty means all."),
        _text("command", "Slash command that made it."),
        _text("mml", "Markup of a command's answer."),
        _text("poll_id", "Poll that it carries."),
        _json("poll", "The poll, whole."),
        _json("i18n", "Translations: `language`, `<lang>_text`."),
        _json("image_labels", "Labels that moderation gave to images."),
        _json("moderation", "Moderation's verdict: action, original text, harms."),
        _json("member", "The author's membership when it was sent: role and custom fields."),
        _json("shared_location", "Location that it shares."),
        _json("reminder", "Reminder set on it."),
        _json("draft", "Draft of a reply to it."),
        _time("created_at", "When it was sent. Decides its day folder."),
        _time("updated_at", "When it was last changed in any way."),
        _time("message_text_updated_at", "When its text was last edited."),
        _time("deleted_at", "When it was soft-deleted; hard-deleted messages are gone."),
        *_TRAILER,
    ),
)

_MESSAGE_CREATED_AT = _made(
    "message_created_at",
    Kind.TIME,
    "When the message was sent; where it is not in the export, the reaction's own time. Decides the day folder.",
)

REACTIONS: Final = Table(
    name="reactions",
    doc="One row per reaction of a user to a message.",
    placement=Placement.EVENT,
    entity=Entity.REACTION,
    key=("message_id", "user_id", "type"),
    sort=("cid", "message_created_at", "message_id", "user_id", "type"),
    bloom=("message_id", "user_id"),
    dictionary_off=("message_id", "custom"),
    placed_by="message_created_at",
    columns=(
        _text("message_id", "Message reacted to."),
        _text("cid", "Channel of the message, as `type:id`; null where the export does not say."),
        _id_of("user_id", "user", "Who reacted.", or_field="user_id"),
        _text("type", "Kind of reaction, such as `love`."),
        _int("score", "Score, 1 unless the app counts differently."),
        _time("created_at", "When the user reacted."),
        _time("updated_at", "When the reaction was last changed."),
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
    bloom=("message_id",),
    dictionary_off=("message_id", "custom"),
    placed_by="message_created_at",
    columns=(
        _made("message_id", Kind.TEXT, "Message that carries it."),
        _made("cid", Kind.TEXT, "Channel of the message, as `type:id`."),
        _made("position", Kind.INT, "Place in the message, from 0."),
        _text("type", "image, video, audio, file, giphy, ... or the app's own."),
        _text("title", "Title."),
        _text("title_link", "Where the title leads."),
        _text("text", "Text or description."),
        _text("image_url", "Image."),
        _text("thumb_url", "Thumbnail."),
        _text("asset_url", "File, video or audio."),
        _text("og_scrape_url", "Page that was unfurled."),
        _text("author_name", "Author or site name."),
        _text("author_link", "Where the author's name leads."),
        _text("author_icon", "Author's icon."),
        _text("color", "Colour of the border."),
        _text("fallback", "Plain text for clients that cannot show it."),
        _text("pretext", "Text above it."),
        _text("footer", "Footer."),
        _text("footer_icon", "Footer's icon."),
        _int("original_width", "Width of the image, pixels."),
        _int("original_height", "Height of the image, pixels."),
        _json("actions", "Buttons."),
        _json("fields", "Short titled values."),
        _json("giphy", "Renditions of a GIF."),
        _made("message_created_at", Kind.TIME, "When the message was sent. Decides the day folder."),
        *_TRAILER,
    ),
)

CHANNELS: Final = Table(
    name="channels",
    doc="One row per channel, as the newest export tells it.",
    placement=Placement.SNAPSHOT,
    entity=Entity.CHANNEL,
    key=("cid",),
    sort=("cid",),
    unkept=("members",),
    columns=(
        _CID,
        _text("type", "Channel type."),
        _text("id", "Channel id, unique within its type."),
        Column(
            name="name",
            kind=Kind.TEXT,
            doc="Display name, from the custom fields.",
            sql="coalesce(json_extract_string(d.name, '$'), json_extract_string(d.custom, '$.name'))",
            reads=("name",),
        ),
        _text("team", "Team, in multi-tenant apps."),
        _id_of("created_by_id", "created_by", "Who created it."),
        _int("member_count", "Members."),
        _int("message_count", "Messages, where the app counts them."),
        _bool("frozen", "No new messages."),
        _bool("disabled", "Closed to all."),
        _bool("blocked", "Blocked by the user asked for."),
        _bool("hidden", "Hidden for the user asked for."),
        _bool("muted", "Muted for the user asked for."),
        _int("cooldown", "Slow mode: seconds between two messages of a user."),
        _bool("auto_translation_enabled", "Messages are translated."),
        _text("auto_translation_language", "Language translated to."),
        _texts("filter_tags", "Tags to filter by."),
        _texts("own_capabilities", "What the user asked for may do."),
        _json("config", "Settings of the channel type, as they apply here."),
        _time("created_at", "When it was created."),
        _time("updated_at", "When it was last changed."),
        _time("last_message_at", "Its newest message."),
        _time("hide_messages_before", "History before is hidden for the user asked for."),
        _time("mute_expires_at", "When the mute ends."),
        _time("truncated_at", "Messages before are hidden by truncation."),
        _id_of("truncated_by_id", "truncated_by", "Who truncated it."),
        _time("deleted_at", "When it was soft-deleted."),
        *_TRAILER,
    ),
)

MEMBERS: Final = Table(
    name="members",
    doc="One row per member of a channel, as the newest export that names them tells it.",
    placement=Placement.SNAPSHOT,
    entity=Entity.MEMBER,
    key=("cid", "user_id"),
    sort=("cid", "user_id"),
    columns=(
        _CID,
        _id_of("user_id", "user", "The member.", or_field="user_id"),
        _text("channel_role", "Role that decides permissions in the channel."),
        _text("role", "Older role: owner, member, moderator, ..."),
        _text("status", "member, invited, rejected, ..."),
        _bool("is_moderator", "Moderates the channel."),
        _bool("banned", "Banned from the channel."),
        _bool("shadow_banned", "Shadow-banned in the channel."),
        _bool("ban_from_future_channels", "Banned from the author's future channels."),
        _time("ban_expires", "When the ban ends."),
        _time("future_channel_ban_expires", "When the ban from future channels ends."),
        _bool("invited", "Was invited."),
        _time("invite_accepted_at", "When the invitation was accepted."),
        _time("invite_rejected_at", "When the invitation was rejected."),
        _bool("notifications_muted", "The member muted the channel."),
        _texts("deleted_messages", "Messages deleted for this member only."),
        _time("archived_at", "When the member archived the channel."),
        _time("pinned_at", "When the member pinned the channel."),
        _time("created_at", "When they became a member."),
        _time("updated_at", "When the membership was last changed."),
        _time("deleted_at", "When the membership ended."),
        *_TRAILER,
    ),
)

READS: Final = Table(
    name="reads",
    doc="One row per user and channel: how far they have read.",
    placement=Placement.SNAPSHOT,
    entity=Entity.READ,
    key=("cid", "user_id"),
    sort=("cid", "user_id"),
    columns=(
        _CID,
        _id_of("user_id", "user", "The reader.", or_field="user_id"),
        _time("last_read", "When they last read the channel."),
        _text("last_read_message_id", "The last message that they read."),
        _int("unread_messages", "Messages that they have not read."),
        _time("last_delivered_at", "When a message last reached one of their devices."),
        _text("last_delivered_message_id", "The last message that reached one of their devices."),
        *_TRAILER,
    ),
)

USERS: Final = Table(
    name="users",
    doc="One row per user seen in any export, as author, member, mentioned or reacting; newest version.",
    placement=Placement.SNAPSHOT,
    entity=Entity.USER,
    key=("id",),
    sort=("id",),
    columns=(
        _text("id", "User id."),
        _text("name", "Display name."),
        _text("role", "Role in the app."),
        _text("image", "Avatar."),
        _text("language", "Language."),
        _texts("teams", "Teams, in multi-tenant apps."),
        _json("teams_role", "Role per team."),
        _bool("banned", "Banned from the app."),
        _bool("shadow_banned", "Shadow-banned in the app."),
        _time("ban_expires", "When the ban ends."),
        _bool("invisible", "Shown as offline."),
        _bool("online", "Was online when exported."),
        _bool("bypass_moderation", "Not moderated."),
        _int("avg_response_time", "Average time to answer, seconds."),
        _texts("blocked_user_ids", "Users whom they block."),
        _json("devices", "Push devices."),
        _json("privacy_settings", "Privacy settings."),
        _json("push_notifications", "Push settings."),
        _time("created_at", "When the user was created."),
        _time("updated_at", "When the user was last changed."),
        _time("last_active", "When the user was last active."),
        _time("last_engaged_at", "When the user last took part."),
        _time("deactivated_at", "When the user was deactivated."),
        _time("deleted_at", "When the user was deleted."),
        _time("revoke_tokens_issued_before", "Tokens issued before are void."),
        *_TRAILER,
    ),
)

OTHER_ENTITIES: Final = Table(
    name="other_entities",
    doc="Well-formed lines of an entity that has no table of its own, whole.",
    placement=Placement.LOG,
    sort=("entity", "line_number"),
    columns=(
        _made("entity", Kind.TEXT, "The entity's name, as the export has it."),
        _made("cid", Kind.TEXT, "Channel that it belongs to, where the export says."),
        _made("line_number", Kind.INT, "Line in the export file, from 1; in a v1 array, element."),
        _made("data", Kind.JSON, "The object, whole."),
        EXPORTED_AT,
        LOAD_ID,
    ),
)

REJECTS: Final = Table(
    name="rejects",
    doc="Every line, or entity in a line, that could not become a row.",
    placement=Placement.LOG,
    sort=("line_number",),
    dictionary_off=("raw",),
    columns=(
        _made("line_number", Kind.INT, "Line in the export file, from 1; in a v1 array, element."),
        _made("byte_offset", Kind.INT, "Where the line begins, bytes from the start of the unpacked file."),
        _made("reason", Kind.TEXT, "Why."),
        _made("raw", Kind.TEXT, "The bytes as they stand, cut at a limit; base64 where they are not UTF-8."),
        _made("raw_encoding", Kind.TEXT, "utf-8 or base64."),
        _made("raw_size_bytes", Kind.INT, "Size of the whole line, bytes."),
        EXPORTED_AT,
        LOAD_ID,
    ),
)

TABLES: Final = (MESSAGES, REACTIONS, ATTACHMENTS, CHANNELS, MEMBERS, READS, USERS, OTHER_ENTITIES, REJECTS)
BY_NAME: Final = {table.name: table for table in TABLES}
BY_ENTITY: Final = {table.entity: table for table in TABLES if table.entity is not None}
