{#- Read a key of `custom` with a type. The result is null if the key is missing or its value has another type. The key
    may contain any characters. Only digits are an integer, and only true and false are booleans: a cast alone would
    round 1.5 to 2, and turn 1 into true.

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
