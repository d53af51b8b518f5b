-- written by `python scripts/make_dbt.py` from the registry of tables; do not edit
select
    "cid",
    "user_id",
    "last_read",
    "last_read_message_id",
    "unread_messages",
    "last_delivered_at",
    "last_delivered_message_id",
    "custom"::json as "custom",
    "_exported_at",
    "_load_id",
    "export_date"
from {{ lake_table('reads') }}
qualify row_number() over (partition by "cid", "user_id" order by _exported_at desc, _load_id desc) = 1
