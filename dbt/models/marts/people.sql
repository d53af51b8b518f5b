with messages as (
    select * from {{ ref('stg_chatexport__messages') }}
    where deleted_at is null and type is distinct from 'system' and user_id is not null
),

written as (
    select
        user_id,
        count(*) as messages,
        count(*) filter (where parent_id is not null) as replies,
        count(distinct cid) as channels,
        min(created_at) as first_message_at,
        max(created_at) as last_message_at
    from messages
    group by user_id
),

reacted as (
    select user_id, count(*) as reactions_given, min(created_at) as first_at, max(created_at) as last_at
    from {{ ref('stg_chatexport__reactions') }}
    group by user_id
),

received as (
    select messages.user_id, count(*) as reactions_received
    from {{ ref('stg_chatexport__reactions') }} as reactions
    inner join messages on reactions.message_id = messages.id
    group by messages.user_id
),

started as (
    select started_by_id as user_id, count(*) as threads_started
    from {{ ref('threads') }}
    where started_by_id is not null
    group by started_by_id
)

select
    users.id as user_id,
    users.name,
    users.role,
    least(written.first_message_at, reacted.first_at) as first_seen_at,
    greatest(written.last_message_at, reacted.last_at) as last_seen_at,
    coalesce(written.channels, 0) as channels,
    coalesce(written.messages, 0) as messages,
    coalesce(written.replies, 0) as replies,
    coalesce(started.threads_started, 0) as threads_started,
    coalesce(reacted.reactions_given, 0) as reactions_given,
    coalesce(received.reactions_received, 0) as reactions_received
from {{ ref('stg_chatexport__users') }} as users
left join written on users.id = written.user_id
left join reacted on users.id = reacted.user_id
left join received on users.id = received.user_id
left join started on users.id = started.user_id
