{#- A key of `custom` with a type; null where it is missing or of another kind. Whatever the key's spelling.

    select {{ chatexport.custom_value('priority', 'bigint') }} as priority from {{ ref('stg_chatexport__messages') }} -#}
{% macro custom_value(key, type='varchar', column='custom') -%}
    try_cast(json_extract_string({{ column }}, '/{{ key | replace('~', '~0') | replace('/', '~1') | replace("'", "''") }}') as {{ type }})
{%- endmacro %}
