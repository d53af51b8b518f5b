{#- A table of the lake: from its catalog, or from its files where the project says so. -#}
{% macro lake_table(name) -%}
    {%- if var('chatexport_lake_files', '') -%}
        {{ source('chatexport_files', name) }}
    {%- else -%}
        {{ source('chatexport', name) }}
    {%- endif -%}
{%- endmacro %}
