{#- A key of `custom` with a type; null where it is missing or of another kind. Whatever the key's spelling.
    Integers are digits alone, and no number is a boolean: a cast would round the one and take the other.

    select {{ chatexport.custom_value('priority', 'bigint') }} as priority from {{ ref('stg_chatexport__messages') }} -#}
{% macro custom_value(key, type='varchar', column='custom') -%}
    {%- set value = "json_extract_string(" ~ column ~ ", '/" ~ key | replace('~', '~0') | replace('/', '~1') | replace("'", "''") ~ "')" -%}
    {%- if type | lower in ('tinyint', 'smallint', 'integer', 'int', 'bigint', 'hugeint') -%}
    case when regexp_full_match({{ value }}, '-?\d+') then try_cast({{ value }} as {{ type }}) end
    {%- elif type | lower in ('boolean', 'bool') -%}
    case when {{ value }} in ('true', 'false') then {{ value }} = 'true' end
    {%- else -%}
    try_cast({{ value }} as {{ type }})
    {%- endif -%}
{%- endmacro %}
