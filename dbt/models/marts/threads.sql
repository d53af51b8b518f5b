with written as (
    select * from {{ ref('stg_chatexport__messages') }} where deleted_at is null
)

-- The first message may be deleted, or of a time that was never loaded: the thread has a row in any case.
select
    reply.parent_id as thread_id,
    any_value(reply.cid) as cid,
    any_value(parent.user_id) as started_by_id,
    any_value(parent.created_at) as started_at,
    count(*) as replies,
    count(distinct reply.user_id) as repliers,
    min(reply.created_at) as first_reply_at,
    max(reply.created_at) as last_reply_at,
    date_diff(
        'second',
        any_value(parent.created_at),
        min(reply.created_at) filter (where reply.user_id is distinct from parent.user_id)
    ) as seconds_to_first_answer
from written as reply
left join written as parent on reply.parent_id = parent.id
where reply.parent_id is not null
group by reply.parent_id
