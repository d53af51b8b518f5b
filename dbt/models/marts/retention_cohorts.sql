with weeks as (
    select distinct user_id, date_trunc('week', event_date)::date as week
    from {{ ref('stg_chatexport__messages') }}
    where deleted_at is null and type is distinct from 'system' and user_id is not null
),

people as (
    select user_id, week, min(week) over (partition by user_id) as cohort_week
    from weeks
),

counted as (
    select cohort_week, date_diff('week', cohort_week, week) as week_number, count(*) as people
    from people
    group by cohort_week, week
)

select
    cohort_week,
    week_number,
    people,
    first_value(people) over (partition by cohort_week order by week_number) as cohort_size,
    people / first_value(people) over (partition by cohort_week order by week_number) as share
from counted
