{#- One row per day of messages and reactions, with a fingerprint of the rows that make it up. It changes with every
    load, deletion or removal of a person that touches the day, however late: what is built from a day compares it to
    know whether to build the day anew. Hashed twice, because hash() of several values ends in an XOR with the last,
    which would cancel itself out of the XOR of an even number of rows. -#}
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
