{#- A run rebuilds the days whose rows have changed since they were built, so late edits, deletes and removals are right,
    and a run costs only the days that changed. A day without any rows left has nothing to insert in its place, so the
    hook deletes it. -#}
{{ config(
    materialized='incremental',
    incremental_strategy='delete+insert',
    unique_key='event_date',
    on_schema_change='fail',
    post_hook="delete from {{ this }} where (event_date, _fingerprint) not in (
        select (event_date, fingerprint) from ({{ days_as_loaded() }})
    )"
) }}

with days as (
    {{ days_as_loaded() }}
),

changed as (
    select days.event_date, days.fingerprint
    from days
    {% if is_incremental() %}
    left join (select distinct event_date, _fingerprint from {{ this }}) as built on days.event_date = built.event_date
    where built._fingerprint is distinct from days.fingerprint
    {% endif %}
),

messages as (
    select
        messages.event_date,
        messages.cid,
        any_value(messages.channel_type) as channel_type,
        count(*) filter (where messages.deleted_at is null) as messages,
        count(*) filter (where messages.deleted_at is null and messages.parent_id is not null) as replies,
        count(*) filter (where messages.deleted_at is not null) as deleted_messages,
        count(distinct messages.user_id) filter (where messages.deleted_at is null) as people,
        coalesce(sum(messages.attachment_count) filter (where messages.deleted_at is null), 0)::bigint as attachments,
        min(messages.created_at) as first_message_at,
        max(messages.created_at) as last_message_at,
        any_value(changed.fingerprint) as _fingerprint
    from {{ ref('stg_chatexport__messages') }} as messages
    inner join changed on messages.event_date = changed.event_date
    where messages.type is distinct from 'system'
    group by messages.event_date, messages.cid
),

reactions as (
    select reactions.event_date, reactions.cid, count(*) as reactions
    from {{ ref('stg_chatexport__reactions') }} as reactions
    inner join changed on reactions.event_date = changed.event_date
    group by reactions.event_date, reactions.cid
)

select
    messages.event_date,
    messages.cid,
    messages.channel_type,
    messages.messages,
    messages.replies,
    messages.deleted_messages,
    messages.people,
    messages.attachments,
    coalesce(reactions.reactions, 0) as reactions,
    messages.first_message_at,
    messages.last_message_at,
    messages._fingerprint
from messages
left join reactions on messages.event_date = reactions.event_date and messages.cid = reactions.cid
