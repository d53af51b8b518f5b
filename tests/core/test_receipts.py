"""Receipts, which the export task hands to the load task."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_chatexport.core.plan import ChannelsRequest, Cid, ExportFlags, UserId, UsersRequest
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.errors import CallError

REQUESTS = [
    ChannelsRequest(channels=(Cid("messaging:a"),), window=Window.parse("2026-01-01", "2026-01-02")),
    ChannelsRequest(channels=(Cid("messaging:a"), Cid("team:b")), flags=ExportFlags(version="v1", export_users=True)),
    UsersRequest(user_ids=(UserId("u1"), UserId("u2"))),
]
CREATED = [None, datetime(2026, 1, 3, 1, 2, 3, 4, tzinfo=UTC)]
RETENTIONS = [None, Retention(), Retention(max_age_hours=720)]


def receipt(
    request: Any = REQUESTS[0], created_at: datetime | None = None, retention: Retention | None = None
) -> Receipt:
    """Return a receipt of a request."""
    return Receipt(task_id=TaskId("t1"), request=request, created_at=created_at, retention=retention)


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("created_at", CREATED)
@pytest.mark.parametrize("retention", RETENTIONS)
def test_a_receipt_survives_json(request_: Any, created_at: datetime | None, retention: Retention | None) -> None:
    """XCom and trigger events carry it as JSON. A service that has no policy was asked all the same."""
    before = receipt(request_, created_at, retention)
    assert before == Receipt.from_json(json.loads(json.dumps(before.to_json())))


def test_a_receipt_from_before_retention_is_still_read() -> None:
    """A load that is retried after an upgrade has the receipt of the older version."""
    older = {name: value for name, value in receipt().to_json().items() if name != "retention"}
    assert receipt() == Receipt.from_json(older)


def test_an_unknown_version_is_refused_with_a_way_out() -> None:
    """A worker with an older installation must not guess what a newer receipt means."""
    with pytest.raises(CallError, match="version 2, and this installation reads version 1; run export and load with"):
        Receipt.from_json(receipt().to_json() | {"v": 2})


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"v": 1},
        receipt().to_json() | {"kind": "polls"},
        receipt().to_json() | {"created_at": "yesterday"},
        receipt().to_json() | {"request": {"channels": ["messaging:a"]}},
        receipt().to_json() | {"request": None},
        receipt().to_json() | {"task_id": None},
        receipt().to_json() | {"task_id": 5},
        receipt().to_json() | {"task_id": ""},
        receipt().to_json() | {"retention": {"max_age_hours": 0}},
        receipt().to_json() | {"retention": {"max_age_hours": "720"}},
        receipt().to_json() | {"retention": {"max_age_hours": True}},
        receipt().to_json() | {"retention": {"hours": 720}},
        receipt().to_json() | {"retention": 720},
        "t1",
        None,
        ["t1"],
    ],
)
def test_a_value_that_is_not_a_receipt_is_refused(value: Any) -> None:
    """A load operator with a wrong XCom must end with a sentence, not with a KeyError."""
    with pytest.raises(CallError, match="pass what ExportChannelsOperator or ExportUsersOperator returned"):
        Receipt.from_json(value)
