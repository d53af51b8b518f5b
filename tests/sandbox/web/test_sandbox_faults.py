"""Misbehaviour on demand: each kind as a client sees it, and how faults are counted."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta

import httpx
import pytest
from sandbox_calls import PATIENCE_S, Calls

from airflow_provider_chatexport.sandbox.exports.tasks import End, Fate
from airflow_provider_chatexport.sandbox.web.faults import Fault, Faults

SMALL = "messaging:rust"
LOST = (httpx.RemoteProtocolError, httpx.ReadError)


def export_quota(calls: Calls) -> int:
    """Return how many exports of channels the rate limit still accepts."""
    reply = calls.http.get("/api/v2/rate_limits", params={"endpoints": "ExportChannels"})
    return reply.json()["server_side"]["ExportChannels"]["remaining"]


@pytest.mark.parametrize(("status", "code"), [(400, 4), (401, 5), (404, 16), (429, 9), (500, -1), (503, -1)])
def test_status_answers_with_an_error_body(calls, status, code):
    """Clients classify errors by the service's body, so a fault must have it."""
    calls.control.fault(f"status:{status}", "/api/v2/tasks")
    reply = calls.http.get("/api/v2/tasks/x")
    assert (reply.status_code, reply.json()["StatusCode"], reply.json()["code"]) == (status, status, code)


def test_429_says_when_to_come_back(calls):
    """A client that ignores these headers asks again too early."""
    calls.control.fault("status:429", "/api/v2/chat/export_channels")
    reply = calls.export(SMALL)
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert int(reply.headers["x-ratelimit-reset"]) > 1_700_000_000


def test_drop_closes_without_an_answer_and_does_nothing(calls):
    """The client cannot know whether the request arrived; here it did not."""
    calls.control.fault("drop", "/api/v2/chat/export_channels", method="post")
    with pytest.raises(LOST):
        calls.export(SMALL)
    assert [(request.status, request.fault) for request in calls.control.requests()] == [(None, "drop")]
    assert calls.export(SMALL).headers["x-ratelimit-remaining"] == "59"


def test_drop_after_accept_does_the_work(calls):
    """Here the request arrived: the export exists, and the client never gets its id. The rate limit counts it."""
    calls.control.fault("drop-after-accept", "/api/v2/chat/export_channels")
    with pytest.raises(LOST):
        calls.export(SMALL)
    assert calls.export(SMALL).headers["x-ratelimit-remaining"] == "58"


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_truncate_sends_less_than_declared(calls, n_bytes):
    """A connection that breaks in the middle of a download."""
    created = calls.export(SMALL)
    whole, link = calls.file(created), calls.link(created)
    calls.control.fault(f"truncate:{n_bytes}", "/download")
    received: list[bytes] = []
    with httpx.stream("GET", link) as reply:
        assert int(reply.headers["content-length"]) == len(whole)
        chunks = reply.iter_raw()
        with pytest.raises(LOST):
            received.extend(chunks)
    assert b"".join(received) == whole[:n_bytes]


def test_truncate_after_the_end_changes_nothing(calls):
    """An answer that is shorter than that arrives whole."""
    calls.control.fault("truncate:100000", "/api/v2/tasks")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404


def test_truncate_applies_to_answers_of_the_api_too(calls):
    """Half a JSON body is not an answer."""
    created = calls.export(SMALL)
    calls.control.fault("truncate:10", "/api/v2/tasks")
    with pytest.raises(LOST):
        calls.task(created.json()["task_id"])


def test_corrupt_changes_bytes_and_not_the_length(calls, start_sandbox, calls_to):
    """Only a checksum or a decoder notices."""
    created = calls.export(SMALL)
    whole = calls.file(created)
    calls.control.fault("corrupt", "/download")
    wrong = calls.file(created)
    assert (len(wrong), wrong == whole) == (len(whole), False)
    assert calls.file(created) == whole
    zipping = calls_to(start_sandbox(gzip=True))
    zipping.control.fault("corrupt", "/download")
    with pytest.raises((gzip.BadGzipFile, EOFError, OSError, ValueError)):
        json.loads(gzip.decompress(zipping.file(zipping.export(SMALL))).splitlines()[0] + b"!")


def test_slow_answers_late(calls):
    """A client with a timeout gives up, but the work is done."""
    calls.control.fault("slow:600", "/api/v2/chat/export_channels")
    timeout = httpx.Timeout(PATIENCE_S, read=0.2)
    with pytest.raises(httpx.ReadTimeout):
        calls.http.post("/api/v2/chat/export_channels", json={"channels": [{"cid": SMALL}]}, timeout=timeout)
    while export_quota(calls) == 60:
        pass  # The server may read the request only after the client gave up.
    assert export_quota(calls) == 59


def test_expire_answers_as_for_an_expired_link(calls):
    """A client that takes longer than a day gets this; the next link works."""
    created = calls.export(SMALL)
    calls.control.fault("expire", "/download")
    reply = httpx.get(calls.link(created))
    assert (reply.status_code, b"Request has expired" in reply.content) == (403, True)
    assert httpx.get(calls.link(created)).status_code == 200


def test_the_file_host_answers_a_status_in_xml(calls):
    """S3's errors are XML."""
    created = calls.export(SMALL)
    calls.control.fault("status:503", "/download")
    reply = httpx.get(calls.link(created))
    assert (reply.status_code, reply.headers["content-type"]) == (503, "application/xml")


def test_budget_refuses_as_for_used_up_database_time(calls):
    """The docs distinguish this 429 from a rate limit by its header, and Retry-After says when to come back."""
    calls.control.fault("budget", "/api/v2/chat/channels")
    reply = calls.http.post("/api/v2/chat/channels", json={"filter_conditions": {}})
    assert (429, "1") == (reply.status_code, reply.headers["retry-after"])
    assert int(reply.headers["x-budget-used-ms"]) > int(reply.headers["x-budget-limit-ms"])
    assert "0" == reply.headers["x-budget-remaining-ms"] != reply.headers["x-ratelimit-remaining"]
    assert calls.http.post("/api/v2/chat/channels", json={"filter_conditions": {}}).status_code == 201


def test_fail_task_ends_the_next_export_as_failed(calls):
    """Only that one fails, with an ErrorResult. Status requests before it do not use the fault up."""
    calls.control.fault("fail-task", "/api/v2/chat/export_channels")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404
    failed = calls.ended(calls.export(SMALL))
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert failed["error"].keys() >= {"type", "description"}
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


@pytest.mark.parametrize("word", ["error", "pending", "completed"])
def test_fail_task_may_have_another_word_as_its_status(word, calls):
    """An error counts whatever the status next to it says, and a client has to be held against that."""
    calls.control.fault(f"fail-task:{word}", "/api/v2/chat/export_channels")
    task_id = calls.export(SMALL).json()["task_id"]
    calls.control.advance_clock(timedelta(hours=1))
    failed = calls.http.get(f"/api/v2/tasks/{task_id}").json()
    assert (failed["status"], failed["result"]) == (word, None)
    assert failed["error"].keys() >= {"type", "description"}


def test_stall_task_may_have_another_word_as_its_status(calls):
    """The service may add words, and a client waits on."""
    calls.control.fault("stall-task:queued_somewhere", "/api/v2/chat/export_channels")
    task_id = calls.export(SMALL).json()["task_id"]
    calls.control.advance_clock(timedelta(hours=1))
    stalled = calls.http.get(f"/api/v2/tasks/{task_id}").json()
    assert ("queued_somewhere", None) == (stalled["status"], stalled["error"])


def test_a_refused_request_does_not_use_the_fault_up(calls):
    """The fault is for the next export, and a refused request does not create one."""
    calls.control.fault("fail-task", "/api/v2")
    assert calls.export("messaging:none-such").status_code == 404
    assert calls.ended(calls.export_users(calls.sandbox.world.user_ids()[0]))["status"] == "failed"


def test_stall_task_never_ends(calls):
    """Only a deadline ends the wait of a client."""
    calls.control.fault("stall-task", "/", method="POST")
    created = calls.export(SMALL)
    calls.control.advance_clock(timedelta(days=30))
    assert calls.task(created.json()["task_id"])["status"] == "running"


def test_faults_let_some_pass_spoil_some_and_are_gone(calls):
    """First ``after`` requests pass, then ``times`` fail, then all pass."""
    calls.control.fault("status:503", "/api/v2/tasks", after=1, times=2)
    assert [calls.http.get("/api/v2/tasks/x").status_code for _ in range(4)] == [404, 503, 503, 404]
    assert calls.control.faults() == []


def test_a_fault_counts_requests_that_older_faults_spoil(calls):
    """``after`` counts requests: another fault must not shift a scenario."""
    calls.control.fault("status:503", "/tasks")
    calls.control.fault("status:500", "/tasks", after=1)
    assert [503, 500, 404, 404] == [calls.http.get("/tasks/x").status_code for _ in range(4)]


def test_a_fault_applies_to_its_method_and_path_only(calls):
    """A fault that spoiled all requests would prove nothing."""
    calls.control.fault("status:503", "/api/v2/tasks", method="POST")
    calls.control.fault("status:503", "/tasks")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404
    calls.control.clear_faults()
    assert calls.http.get("/tasks/x").status_code == 404


def test_a_list_of_faults_is_set_at_once(calls):
    """A scenario in one call: the oldest fault that matches a request spoils it."""
    scenario = [{"path": "/api/v2/tasks", "do": "status:500"}, {"path": "/api/v2/tasks", "do": "status:502"}]
    assert calls.call_control("POST", "/faults", scenario).status_code == 200
    assert [calls.http.get("/api/v2/tasks/x").status_code for _ in range(3)] == [500, 502, 404]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("drop", "a fault is an object"),
        ({"do": "drop"}, "missing required field `path`"),
        ({"path": "tasks", "do": "drop"}, "path must be"),
        ({"path": "/", "do": "explode"}, "do must be one of budget, corrupt, drop"),
        ({"path": "/"}, "missing required field `do`"),
        ({"path": "/", "do": "drop:3"}, "takes no amount after a colon"),
        ({"path": "/", "do": "status"}, "status takes an HTTP status"),
        ({"path": "/", "do": "status:200"}, "status takes an HTTP status"),
        ({"path": "/", "do": "slow:nan"}, "slow takes a number"),
        ({"path": "/", "do": "truncate:-1"}, "truncate takes a number"),
        ({"path": "/", "do": "truncate:1.5"}, "truncate takes a number"),
        ({"path": "/", "do": "drop", "times": 0}, "times must be"),
        ({"path": "/", "do": "drop", "times": True}, "times: expected `int`, got `bool`"),
        ([{"path": "/", "do": "drop"}, {"path": "/", "do": 5}], "[1].do: expected `str`, got `int`"),
        ({"path": "/", "do": "drop", "after": -1}, "after must be"),
        ({"path": "/", "do": "drop", "method": 1}, "method: expected `str | null`, got `int`"),
        ({"path": "/", "do": "drop", "time": 1}, "unknown field `time`"),
        ({"path": "/api", "do": "expire"}, "/download"),
        ({"path": "/download", "do": "budget"}, "the file host has no budget"),
        ({"path": "/tasks", "do": "fail-task"}, "export that is created"),
        ({"path": "/export", "do": "stall-task", "method": "GET"}, "export that is created"),
        ({"path": "/export", "do": "fail-task:"}, "fail-task takes a word"),
        ({"path": "/export", "do": "stall-task:a b"}, "stall-task takes a word"),
        ({"path": "/export", "do": "stall-task:error"}, "a task with the status error has ended"),
    ],
)
def test_a_wrong_fault_is_refused_with_a_sentence(calls, fault, words):
    """A fault that silently never happens makes a test pass for the wrong reason."""
    reply = calls.call_control("POST", "/faults", fault)
    assert reply.status_code == 400
    assert words in reply.json()["error"]
    assert calls.control.faults() == []


def test_faults_of_answers_and_of_tasks_do_not_use_each_other_up():
    """One request may be dropped and another's export fail: each uses up its own fault."""
    faults = Faults(Fault(path="/export", do=do) for do in ("fail-task", "drop"))
    dropped = faults.take_for_answer("POST", "/export_channels")
    assert (dropped and dropped.do) == "drop"
    assert faults.take_fate("POST", "/export_channels") == Fate(end=End.FAILS)
    assert faults.take_fate("POST", "/export_channels") == Fate()
