{#- A key of `custom` with a type; null where it is missing or of another kind. Any key: it is quoted.

    select {{ chatexport.custom_value('priority', 'bigint') }} as priority from {{ ref('stg_chatexport__messages') }} -#}
{% macro custom_value(key, type='varchar', column='custom') -%}
    try_cast(json_extract_string({{ column }}, '$."{{ key | replace('\\', '\\\\') | replace('"', '\\"') | replace("'", "''") }}"') as {{ type }})
{%- endmacro %}
