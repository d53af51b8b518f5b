"""What only Delta tables have: a log next to the data files, statistics, and the same in an object store."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import deltalake
import pytest
from lakes import LakeProbe, load_file, write_export
from s3_server import S3Server

from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.commits.visibility import path_in
from airflow_provider_chatexport.lake.publish.delta import CHECKPOINT_EVERY, DeltaFormat
from airflow_provider_chatexport.lake.publish.driver import publish
from airflow_provider_chatexport.lake.publish.formats import PublishConflictError
from airflow_provider_chatexport.lake.publish.plan import Change, live_files
from airflow_provider_chatexport.lake.schema.tables import MESSAGES
from airflow_provider_chatexport.lake.storage.address import open_store
from airflow_provider_chatexport.lake.storage.store import LakeStore


def load_day(lake: LakeProbe, folder: Path, day: int, texts: dict[str, str], exported_on: int) -> None:
    """Load a day of January 2026 as it was exported on a day of February."""
    hours = {message_id: (hour, text) for hour, (message_id, text) in enumerate(texts.items(), 8)}
    path = write_export(folder / f"{day}-{exported_on}", hours, f"a:{day}", day=day)
    load_file(lake, path, None, None, f"2026-02-{exported_on:02}T01:00:00Z")


def published(store: LakeStore) -> bool:
    return publish(store, DeltaFormat(store)).changed


@pytest.fixture
def two_days(lake: LakeProbe, tmp_path: Path) -> LakeProbe:
    """A lake with a day of one channel and a day of another."""
    load_day(lake, tmp_path, 1, {"a": "a1", "b": "b1"}, 1)
    load_day(lake, tmp_path, 2, {"c": "c1"}, 2)
    return lake


def test_the_log_says_enough_to_skip_files_and_nothing_of_people(two_days: LakeProbe) -> None:
    """A query of a day or a channel opens one file. A log is kept for a month, so no user id may be in it."""
    published(open_store(two_days.uri))
    table = deltalake.DeltaTable(f"{two_days.uri}/_files/messages")
    assert 2 == len(table.file_uris())
    for predicate in ("cid = 'a:1'", "event_date = DATE '2026-01-02'", "created_at < '2026-01-02T00:00:00Z'"):
        assert 1 == len(table.file_uris(file_pruning_predicate=predicate)), predicate
    actions = table.get_add_actions(flatten=True)
    assert [1, 2] == sorted(actions["num_records"].to_pylist())
    assert date(2026, 1, 2) == max(actions["max.event_date"].to_pylist())
    log = "".join(path.read_text() for path in Path(f"{two_days.uri}/_files/messages/_delta_log").glob("*.json"))
    stats = [json.loads(json.loads(each)["add"]["stats"]) for each in log.splitlines() if '"add"' in each]
    assert {"cid", "created_at", "event_date"} == {name for each in stats for name in each["minValues"]}


def test_columns_have_their_descriptions_and_other_engines_do_not_vacuum(two_days: LakeProbe) -> None:
    """Their vacuum would delete files that the lake needs, and that the log does not name yet, or not any more."""
    published(open_store(two_days.uri))
    table = deltalake.DeltaTable(f"{two_days.uri}/_files/messages")
    comments = {field.name: field.metadata.get("comment") for field in table.schema().fields}
    assert "Message id, unique in the app." == comments["id"]
    assert (comments["custom"] or "").endswith("As JSON text.")
    data = {path.name for path in Path(two_days.uri).rglob("*.pq")}
    Lake(two_days.uri).compact()
    assert [] == table.vacuum(full=True, dry_run=True)
    assert data <= {path.name for path in Path(two_days.uri).rglob("*.pq")}


def test_the_log_stays_short_however_often_a_lake_is_published(two_days: LakeProbe) -> None:
    """Each publication adds a file to the log, and readers open all of them since the last checkpoint."""
    store = open_store(two_days.uri)
    published(store)
    live = live_files(two_days.snapshot(), MESSAGES, functools.partial(path_in, store))
    log = Path(two_days.uri) / "_files" / "messages" / "_delta_log"
    # There are no other files, so an even number of exchanges leaves the table as it is.
    for version in range(100, 100 + 2 * CHECKPOINT_EVERY):
        opened = DeltaFormat(store).open(MESSAGES)
        is_there = live[-1].path in _files(opened)
        change = Change(table=MESSAGES, is_new=False, add=(), remove=(), new_columns=(), version=version)
        opened.commit(replace(change, **({"remove": (live[-1].path,)} if is_there else {"add": (live[-1],)})))
        if version == 100 + CHECKPOINT_EVERY:
            for path in log.iterdir():
                os.utime(path, (0, 0))
    table = deltalake.DeltaTable(log.parent)
    assert 2 * CHECKPOINT_EVERY == table.version()
    assert CHECKPOINT_EVERY + 3 >= len(list(log.glob("*.json")))
    assert two_days.texts() == {row["id"]: row["text"] for row in table.to_pyarrow_table().to_pylist()}


def test_what_another_engine_writes_is_taken_back(two_days: LakeProbe) -> None:
    """The lake is the truth: a deleted row comes back, and appended rows go."""
    store = open_store(two_days.uri)
    published(store)
    address = f"{two_days.uri}/_files/messages"
    deltalake.DeltaTable(address).delete("id = 'a'")
    assert 2 == deltalake.DeltaTable(address).count()
    assert published(store)
    assert 3 == deltalake.DeltaTable(address).count()
    assert not published(store)


def test_a_log_that_is_damaged_is_one_sentence(two_days: LakeProbe) -> None:
    published(open_store(two_days.uri))
    (Path(two_days.uri) / "_files/messages/_delta_log/00000000000000000000.json").write_text("{broken")
    with pytest.raises(Exception, match=r"cannot read the Delta table .*/_files/messages \(.+\); check that it is"):
        published(open_store(two_days.uri))


def test_tables_of_a_lake_in_an_object_store(bucket: LakeProbe, s3: S3Server, tmp_path: Path) -> None:
    """Credentials come from whatever reaches the lake; of two commits at once, one is refused by the store."""
    load_day(bucket, tmp_path, 1, {"a": "a1", "b": "b1"}, 1)
    store = open_store(bucket.uri, s3.storage_options)
    late = DeltaFormat(store).open(MESSAGES)
    assert published(store)
    assert not published(open_store(bucket.uri))  # by the variables of the environment
    load_day(bucket, tmp_path, 1, {"a": "a2"}, 2)
    late_again = DeltaFormat(store).open(MESSAGES)
    with Lake(bucket.uri) as lake:
        assert lake.publish("delta").changed
        lake.vacuum(keep=timedelta(0))
        options = {**s3.variables, "AWS_ALLOW_HTTP": "true"}
        table = deltalake.DeltaTable(f"{bucket.uri}/_files/messages", storage_options=options)
        assert bucket.texts() == {row["id"]: row["text"] for row in table.to_pyarrow_table().to_pylist()}
    for opened, is_new in ((late, True), (late_again, False)):
        with pytest.raises(PublishConflictError):
            opened.commit(
                Change(table=MESSAGES, is_new=is_new, add=(), remove=_files(opened), new_columns=(), version=9)
            )


def _files(opened: object) -> tuple[str, ...]:
    state = opened.state()  # type: ignore[attr-defined]
    return tuple(state.files) if state else ()
