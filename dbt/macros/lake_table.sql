{#- Return a table of the lake: from its catalog, or from its files if chatexport_lake_files is set. -#}
{% macro lake_table(name) -%}
    {%- if var('chatexport_lake_files', '') -%}
        {{ source('chatexport_files', name) }}
    {%- else -%}
        {{ source('chatexport', name) }}
    {%- endif -%}
{%- endmacro %}
