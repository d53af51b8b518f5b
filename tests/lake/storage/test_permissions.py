"""The policy of docs/object-storage.md on a server that enforces it: it suffices, and nothing in it can be left out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from export_objects import channel, line, message, write_lines
from s3_server import BUCKET, WITH_POLICY, S3Server, without_action

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake import Lake
from airflow_provider_chatexport.lake.storage.address import open_store

LAKE = f"s3://{BUCKET}/lake"


@pytest.fixture
def become(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that uses the credentials of a key from then on."""

    def become(key: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        fsspec.get_filesystem_class("s3").clear_instance_cache()

    return become


def load(folder: Path, number: int, text: str) -> None:
    """Load a message of each of two people."""
    messages = [line("message", message(f"m{who}", text=text, user={"id": who})) for who in ("ann", "bob")]
    Lake(LAKE).load(
        write_lines(folder / f"{number}", [line("channel", channel()), *messages]),
        since="2026-01-01",
        until="2026-01-02",
        exported_at=f"2026-01-0{number}T00:00:00Z",
        options=LoadOptions(keep_superseded=True),
    )


def test_the_documented_policy_suffices_and_each_of_its_actions_is_needed(
    become: Callable[[str], None], tmp_path: Path
) -> None:
    """An administrator grants what the page says. One action too few would show in the middle of the night."""
    become(WITH_POLICY)
    load(tmp_path, 2, "first")
    load(tmp_path, 3, "second")
    lake = Lake(LAKE)
    lake.compact()
    assert ["mann", "mbob"] == [row[0] for row in lake.fetch("SELECT id FROM messages ORDER BY id").rows]
    lake.forget_user("ann")
    lake.vacuum(keep=timedelta(0), history=True)
    assert [["mbob", "second"]] == lake.fetch("SELECT id, text FROM messages").rows
    assert 1 == len(lake.coverage().spans)
    assert lake.verify().ok
    lake.repair(full=True)
    large = tmp_path / "large"
    large.write_bytes(bytes(101 * 1024 * 1024))
    store = open_store(LAKE)
    store.publish(large, "messages/event_month=2026-01/large")
    store.delete(["messages/event_month=2026-01/large"])
    with pytest.raises(LakeError, match=r"the store does not allow these credentials to write there; .*permissions"):
        Lake(f"s3://{BUCKET}/other").create()

    become(without_action("s3:PutObject"))
    with pytest.raises(LakeError, match=r"cannot write the lake at s3://chat/lake: the store does not allow these"):
        load(tmp_path, 4, "third")
    assert [["mbob", "second"]] == Lake(LAKE).fetch("SELECT id, text FROM messages").rows
    for action in ("s3:GetObject", "s3:ListBucket"):
        become(without_action(action))
        with pytest.raises(LakeError, match=r"cannot read the lake at s3://chat/lake: the store does not allow these"):
            load(tmp_path, 4, "third")
        with pytest.raises(LakeError, match=r"cannot read the lake at s3://chat/lake: the store does not allow these"):
            Lake(LAKE).verify()
    become(without_action("s3:DeleteObject"))
    with pytest.raises(LakeError, match=r"cannot write the lake at s3://chat/lake: the store does not allow these"):
        Lake(LAKE).forget_user("bob")
    become(WITH_POLICY)
    load(tmp_path, 4, "third")
    Lake(LAKE).forget_user("bob")
    assert [] == Lake(LAKE).fetch("SELECT id, text FROM messages").rows
