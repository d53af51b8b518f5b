{#- Find rows that have the same values in these columns; there must be none. -#}
{% test unique_together(model, columns) %}
select {{ columns | join(', ') }}, count(*) as n_rows
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
