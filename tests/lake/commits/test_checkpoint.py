"""The checkpoint: what it says of records is what they say, and a damaged one is as good as none."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from records import HOUR, LOADS, START, data_file

from airflow_provider_chatexport.lake.commits import checkpoint, record_json
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING
from airflow_provider_chatexport.lake.commits.lost_coverage import LostSpan

REWRITE = replace(
    LOADS[0],
    load_id="rewrite-000001",
    since=None,
    until=None,
    sources=(),
    coverage=(LOADS[0].coverage[0], replace(LOADS[1].coverage[0], since=BEGINNING)),
    files=(replace(data_file("r"), n_uncovered=1, promoted=(("mood", "VARCHAR"),)),),
    history=(data_file("h"),),
    counts={"rows": {}},
    replaces=("load-0", "load-1"),
    keep_superseded=True,
    has_unique_keys=False,
    late_changes=({"age_days": 1, "edited": 2},),
    purged=("messages/p",),
    lost=(LostSpan(since=START, until=START + HOUR, load_ids=("load-0",)),),
    flags={"clear_deleted_message_text": True},
    facts={"kind": "compaction", "rewritten": {"messages/0": ["messages/r"]}, "n_loads": 2},
    writer="an older version",
)
WITHOUT_ANYTHING = replace(REWRITE, load_id="rewrite-000002", coverage=(), files=(), history=(), facts={})
RECORDS = [*LOADS, REWRITE, WITHOUT_ANYTHING]


def test_records_are_what_they_were_however_often_they_are_written() -> None:
    """Parts of a checkpoint are taken over as they are when the next one is written."""
    first = checkpoint.read(checkpoint.write(RECORDS[:-2]), "checkpoint")
    second = checkpoint.read(checkpoint.write([*first.values(), *RECORDS[-2:]]), "checkpoint")
    third = checkpoint.read(checkpoint.write([each for each in second.values() if each != LOADS[7]]), "checkpoint")
    assert {each.path: each for each in RECORDS[:-2]} == first
    assert {each.path: each for each in RECORDS} == second
    assert {each.path: each for each in RECORDS if each != LOADS[7]} == third
    for each in RECORDS[-2:]:
        read = second[each.path]
        assert record_json.to_bytes(each) == record_json.to_bytes(read)
        assert (each.has_uncovered, each.has_promoted, each.is_load, each.extent, each.n_loads) == (
            read.has_uncovered,
            read.has_promoted,
            read.is_load,
            read.extent,
            read.n_loads,
        )


def test_a_new_checkpoint_packs_what_is_new_and_not_all_bodies_again() -> None:
    """With 20,000 loads, every fiftieth load would take seconds more than the others."""
    before = checkpoint.write(LOADS)
    blocks = json.loads(gzip.decompress(before).splitlines()[0])["blocks"]
    size, _ = blocks[1]
    start = len(before) - sum(size for size, _ in blocks[1:])
    after = checkpoint.write([*checkpoint.read(before, "checkpoint").values(), REWRITE])
    assert before[start : start + size] in after


def test_people_can_read_a_checkpoint() -> None:
    """It is a gzip file of lines of JSON."""
    assert len(LOADS) < len([json.loads(line) for line in gzip.decompress(checkpoint.write(LOADS)).splitlines()])


@pytest.mark.parametrize("place", [0, 15, 100, -5000, -20, -1])
def test_a_damaged_checkpoint_is_found_damaged_when_it_is_read(place: int) -> None:
    """What is read later must not fail later: then the records' own files are not looked at any more."""
    content = bytearray(checkpoint.write(LOADS))
    content[place] ^= 0x55
    for damaged in (bytes(content), bytes(content[:place])):
        with pytest.raises(checkpoint.UnreadableError):
            checkpoint.read(damaged, "checkpoint")


def test_a_checkpoint_of_version_2_is_read() -> None:
    """A lake of the version before has one. Without it, the first load would read thousands of records one by one."""
    sets: dict[ChannelSet, int] = {}
    records = [record_json.to_json(each, sets) | {"v": 3} for each in RECORDS]
    lines = [{"v": 2, "channels": [each.to_json() for each in sets]}, *records]
    content = gzip.compress(b"".join(json.dumps(each).encode() + b"\n" for each in lines))
    assert {each.path: each for each in RECORDS} == checkpoint.read(content, "checkpoint")
