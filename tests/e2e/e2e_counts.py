"""What must come out: counted from the published chat, past all of our code; and what did."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from importlib import resources
from pathlib import Path

import duckdb

# No truncation hides messages of these, so the corpus itself says what must come out.
CHANNELS = ("livestream:ubuntu", "messaging:rust", "team:ubuntu-meeting")
DAG = "chatexport_daily"


def told_by_the_corpus(since: str, until: str) -> Counter[str]:
    """Messages per channel in those days, which are dates."""
    shipped = resources.files("airflow_provider_chatexport.sandbox") / "data" / "irc-messages.ndjson.gz"
    with shipped.open("rb") as packed, gzip.open(packed) as lines:
        messages = map(json.loads, lines)
        return Counter(
            message["cid"] for message in messages if since <= message["at"] < until and message["cid"] in CHANNELS
        )


def rows_in(lake: Path, since: str = "2000-01-01", until: str = "2100-01-01") -> Counter[str]:
    within = f"created_at >= '{since}T00:00:00Z'::TIMESTAMPTZ AND created_at < '{until}T00:00:00Z'::TIMESTAMPTZ"
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        return Counter(dict(catalog.sql(f"SELECT cid, count(*) FROM messages WHERE {within} GROUP BY cid").fetchall()))
