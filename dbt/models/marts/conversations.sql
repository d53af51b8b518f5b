with written as (
    select cid, id, user_id, created_at
    from {{ ref('stg_chatexport__messages') }}
    where deleted_at is null and type is distinct from 'system'
),

gaps as (
    select
        *,
        coalesce(
            created_at - lag(created_at) over in_channel
            > to_minutes({{ var('chatexport_conversation_gap_minutes') }}),
            true
        ) as is_first
    from written
    window in_channel as (partition by cid order by created_at, id)
),

numbered as (
    select
        *,
        count(*) filter (where is_first) over (
            partition by cid order by created_at, id rows between unbounded preceding and current row
        ) as number
    from gaps
),

started as (
    select *, first_value(user_id) over (partition by cid, number order by created_at, id) as started_by_id
    from numbered
)

select
    arg_min(id, (created_at, id)) as conversation_id,
    cid,
    any_value(started_by_id) as started_by_id,
    min(created_at) as started_at,
    max(created_at) as ended_at,
    count(*) as messages,
    count(distinct user_id) as people,
    date_diff(
        'second', min(created_at), min(created_at) filter (where user_id is distinct from started_by_id)
    ) as seconds_to_first_answer
from started
group by cid, number
