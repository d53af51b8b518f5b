-- written by `python scripts/make_dbt.py` from the registry of tables; do not edit
select
    "message_id",
    "cid",
    "user_id",
    "type",
    "score",
    "created_at",
    "updated_at",
    "message_created_at",
    "custom",
    "_exported_at",
    "_load_id",
    "event_date"
from {{ source('chatexport', 'reactions') }}
