-- written by `python scripts/make_dbt.py` from the registry of tables; do not edit
select
    "cid",
    "user_id",
    "channel_role",
    "role",
    "status",
    "is_moderator",
    "banned",
    "shadow_banned",
    "ban_from_future_channels",
    "ban_expires",
    "future_channel_ban_expires",
    "invited",
    "invite_accepted_at",
    "invite_rejected_at",
    "notifications_muted",
    "deleted_messages",
    "archived_at",
    "pinned_at",
    "created_at",
    "updated_at",
    "deleted_at",
    "custom",
    "_exported_at",
    "_load_id",
    "export_date"
from {{ lake_table('members') }}
qualify row_number() over (partition by "cid", "user_id" order by _exported_at desc, _load_id desc) = 1
