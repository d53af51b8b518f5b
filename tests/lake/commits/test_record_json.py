"""Records as JSON."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace

import pytest
from records import LOADS

from airflow_provider_chatexport.errors import DamagedRecordError
from airflow_provider_chatexport.lake.commits import record_json
from airflow_provider_chatexport.lake.commits.channels import ChannelSet


def test_a_long_list_of_channels_is_packed() -> None:
    """Regression: a year of 50,000 channels had 700 MB of records, nine tenths of it lists of channels."""
    names = [f"messaging:{uuid.UUID(int=number)}" for number in range(1000)]
    of_many = [replace(each, channels=ChannelSet.of(names)) for each in LOADS[0].coverage]
    record = replace(LOADS[0], coverage=tuple(of_many))
    content = record_json.to_bytes(record)
    assert record == record_json.from_bytes(content, "record")
    assert len(content) < sum(map(len, names)) / 4
    value = json.loads(content)
    value["coverage"]["channels"][0]["packed"] = value["coverage"]["channels"][0]["packed"][:-8]
    with pytest.raises(DamagedRecordError):
        record_json.from_bytes(json.dumps(value).encode(), "record")


def test_a_short_list_of_channels_can_be_read_by_people() -> None:
    """Who looks for the load that covers a channel finds it with grep."""
    assert b'{"a:":["1"]}' in record_json.to_bytes(LOADS[0])
