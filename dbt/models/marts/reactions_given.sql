select
    reactions.message_id,
    reactions.type,
    reactions.user_id as from_user_id,
    messages.user_id as to_user_id,
    reactions.cid,
    reactions.score,
    reactions.created_at,
    reactions.message_created_at,
    date_diff('second', reactions.message_created_at, reactions.created_at) as seconds_after_message
from {{ ref('stg_chatexport__reactions') }} as reactions
left join {{ ref('stg_chatexport__messages') }} as messages on reactions.message_id = messages.id
