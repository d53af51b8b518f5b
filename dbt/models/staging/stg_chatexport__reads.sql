-- written by `python scripts/make_dbt.py` from the registry of tables; do not edit
select
    "cid",
    "user_id",
    "last_read",
    "last_read_message_id",
    "unread_messages",
    "last_delivered_at",
    "last_delivered_message_id",
    "custom",
    "_exported_at",
    "_load_id",
    "export_date"
from {{ source('chatexport', 'reads') }}
