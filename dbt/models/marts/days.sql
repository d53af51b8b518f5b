select unnest(generate_series(min(event_date), max(event_date), interval 1 day))::date as event_date
from {{ ref('channel_activity_daily') }}
