"""The expected messages, counted in the published chat without any of our code, and the rows of the lake."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from importlib import resources
from pathlib import Path

import duckdb

# No truncation hides messages of these channels, so all messages of the corpus must be in the lake.
CHANNELS = ("livestream:ubuntu", "messaging:rust", "team:ubuntu-meeting")
DAG = "chatexport_daily"


def messages_in_the_corpus(since: str, until: str) -> Counter[str]:
    """Return the number of messages per channel between two dates."""
    corpus = resources.files("airflow_provider_chatexport.sandbox") / "data" / "irc-messages.ndjson.gz"
    with corpus.open("rb") as compressed, gzip.open(compressed) as lines:
        messages = map(json.loads, lines)
        return Counter(
            message["cid"] for message in messages if since <= message["at"] < until and message["cid"] in CHANNELS
        )


def rows_in(lake: Path, since: str = "2000-01-01", until: str = "2100-01-01") -> Counter[str]:
    """Return the number of messages per channel in the lake, between two dates."""
    within = f"created_at >= '{since}T00:00:00Z'::TIMESTAMPTZ AND created_at < '{until}T00:00:00Z'::TIMESTAMPTZ"
    with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as catalog:
        return Counter(dict(catalog.sql(f"SELECT cid, count(*) FROM messages WHERE {within} GROUP BY cid").fetchall()))
