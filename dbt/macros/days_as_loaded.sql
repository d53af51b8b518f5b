{#- Return one row per day of messages and reactions, with a fingerprint of the day's rows. The fingerprint changes with
    every load, deletion or removal of a person that affects the day, however late. A model that is built by the day
    compares it to find the days to rebuild. Rows are hashed twice: hash() of several values ends in an XOR with the
    last value, which would vanish from the XOR of an even number of rows with the same last value. -#}
{% macro days_as_loaded() -%}
    select event_date, hash(count(*), bit_xor(hash(row_hash))) as fingerprint
    from (
        select event_date, hash('message', id, user_id, _load_id) as row_hash from {{ ref('stg_chatexport__messages') }}
        union all
        select event_date, hash('reaction', message_id, user_id, type, _load_id)
        from {{ ref('stg_chatexport__reactions') }}
    ) as rows_of_days
    group by event_date
{%- endmacro %}
