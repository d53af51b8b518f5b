"""Misbehaviour on demand: each kind as a client meets it, and how faults are counted."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from airflow_provider_chatexport.sandbox.exports.tasks import Fate
from airflow_provider_chatexport.sandbox.web.faults import Fault, Faults

SMALL = "messaging:rust"
LOST = (httpx.RemoteProtocolError, httpx.ReadError)


@pytest.mark.parametrize(("status", "code"), [(400, 4), (401, 5), (404, 16), (429, 9), (500, -1), (503, -1)])
def test_status_answers_with_an_error_body(calls, status, code):
    """The body is that of the service, so that clients classify it the same way."""
    calls.fault(f"status:{status}", "/api/v2/tasks")
    reply = calls.http.get("/api/v2/tasks/x")
    assert (reply.status_code, reply.json()["StatusCode"], reply.json()["code"]) == (status, status, code)


def test_429_says_when_to_come_back(calls):
    """A client that ignores these headers comes back too early."""
    calls.fault("status:429", "/api/v2/chat/export_channels")
    reply = calls.export(SMALL)
    assert (reply.headers["retry-after"], reply.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert int(reply.headers["x-ratelimit-reset"]) > 1_700_000_000


def test_drop_closes_without_an_answer_and_does_nothing(calls):
    """The client cannot know whether it was heard; here it was not."""
    calls.fault("drop", "/api/v2/chat/export_channels", method="post")
    with pytest.raises(LOST):
        calls.export(SMALL)
    assert [(noted["status"], noted["fault"]) for noted in calls.control("GET", "/requests").json()] == [(None, "drop")]
    assert calls.export(SMALL).headers["x-ratelimit-remaining"] == "59"


def test_drop_after_accept_does_the_work(calls):
    """Here it was heard: the export exists and nobody knows its id. The counter shows it."""
    calls.fault("drop-after-accept", "/api/v2/chat/export_channels")
    with pytest.raises(LOST):
        calls.export(SMALL)
    assert calls.export(SMALL).headers["x-ratelimit-remaining"] == "58"


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_truncate_sends_less_than_declared(calls, n_bytes):
    """A connection that breaks in the middle of a download."""
    created = calls.export(SMALL)
    whole, link = calls.file(created), calls.link(created)
    calls.fault(f"truncate:{n_bytes}", "/download")
    received: list[bytes] = []
    with httpx.stream("GET", link) as reply:
        assert int(reply.headers["content-length"]) == len(whole)
        chunks = reply.iter_raw()
        with pytest.raises(LOST):
            received.extend(chunks)
    assert b"".join(received) == whole[:n_bytes]


def test_truncate_behind_the_end_spoils_nothing(calls):
    """Fewer bytes than there are cannot be had from a short answer."""
    calls.fault("truncate:100000", "/api/v2/tasks")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404


def test_truncate_reaches_answers_of_the_api_too(calls):
    """Half a JSON body is no answer."""
    created = calls.export(SMALL)
    calls.fault("truncate:10", "/api/v2/tasks")
    with pytest.raises(LOST):
        calls.task(created.json()["task_id"])


def test_corrupt_changes_bytes_and_not_the_length(calls, start_sandbox, calls_to):
    """Only a checksum or a decoder can tell."""
    created = calls.export(SMALL)
    whole = calls.file(created)
    calls.fault("corrupt", "/download")
    wrong = calls.file(created)
    assert (len(wrong), wrong == whole) == (len(whole), False)
    assert calls.file(created) == whole
    packing = calls_to(start_sandbox(gzip=True))
    packing.fault("corrupt", "/download")
    with pytest.raises((gzip.BadGzipFile, EOFError, OSError, ValueError)):
        json.loads(gzip.decompress(packing.file(packing.export(SMALL))).splitlines()[0] + b"!")


def test_slow_answers_late(calls):
    """A client with a time-out gives up; the work is done all the same."""
    calls.fault("slow:30", "/api/v2/chat/export_channels")
    with pytest.raises(httpx.ReadTimeout):
        calls.http.post("/api/v2/chat/export_channels", json={"channels": [{"cid": SMALL}]}, timeout=0.2)
    assert calls.export(SMALL).headers["x-ratelimit-remaining"] == "58"


def test_expire_is_a_dead_link(calls):
    """What a client gets that took longer than a day; the next link works."""
    created = calls.export(SMALL)
    calls.fault("expire", "/download")
    reply = httpx.get(calls.link(created))
    assert (reply.status_code, b"Request has expired" in reply.content) == (403, True)
    assert httpx.get(calls.link(created)).status_code == 200


def test_the_file_host_answers_statuses_in_its_own_words(calls):
    """S3 speaks XML."""
    created = calls.export(SMALL)
    calls.fault("status:503", "/download")
    reply = httpx.get(calls.link(created))
    assert (reply.status_code, reply.headers["content-type"]) == (503, "application/xml")


def test_fail_task_ends_the_next_export_as_failed(calls):
    """Failed with an ErrorResult, and only that one. Status requests in between use nothing up."""
    calls.fault("fail-task", "/api/v2/chat/export_channels")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404
    failed = calls.ended(calls.export(SMALL))
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert failed["error"].keys() >= {"type", "description"}
    assert calls.ended(calls.export(SMALL))["status"] == "completed"


def test_a_refused_request_uses_no_fate_up(calls):
    """The status is for the next export, and a refused request creates none."""
    calls.fault("fail-task", "/api/v2")
    assert calls.export("messaging:none-such").status_code == 404
    assert calls.ended(calls.export_users(calls.sandbox.world.user_ids()[0]))["status"] == "failed"


def test_stall_task_never_ends(calls):
    """Only a deadline gets a client out of this one."""
    calls.fault("stall-task", "/", method="POST")
    created = calls.export(SMALL)
    calls.advance(30 * 86400)
    assert calls.task(created.json()["task_id"])["status"] == "running"


def test_faults_let_some_pass_spoil_some_and_are_gone(calls):
    """``after`` pass, ``times`` fail, the rest pass."""
    calls.fault("status:503", "/api/v2/tasks", after=1, times=2)
    assert [calls.http.get("/api/v2/tasks/x").status_code for _ in range(4)] == [404, 503, 503, 404]
    assert calls.control("GET", "/faults").json() == []


def test_a_fault_counts_what_older_ones_spoil(calls):
    """``after`` speaks of requests: a scenario must not shift when another fault takes one of them."""
    calls.fault("status:503", "/tasks")
    calls.fault("status:500", "/tasks", after=1)
    assert [503, 500, 404, 404] == [calls.http.get("/tasks/x").status_code for _ in range(4)]


def test_a_fault_keeps_to_its_method_and_path(calls):
    """One that spoiled everything would prove nothing."""
    calls.fault("status:503", "/api/v2/tasks", method="POST")
    calls.fault("status:503", "/tasks")
    assert calls.http.get("/api/v2/tasks/x").status_code == 404
    assert calls.control("DELETE", "/faults").json() == []
    assert calls.http.get("/tasks/x").status_code == 404


def test_a_list_of_faults_is_set_at_once(calls):
    """A scenario in one call; the oldest fault that wants a request has it."""
    scenario = [{"path": "/api/v2/tasks", "do": "status:500"}, {"path": "/api/v2/tasks", "do": "status:502"}]
    assert calls.control("POST", "/faults", scenario).status_code == 200
    assert [calls.http.get("/api/v2/tasks/x").status_code for _ in range(3)] == [500, 502, 404]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("drop", "a fault is an object"),
        ({"do": "drop"}, "path must be"),
        ({"path": "tasks", "do": "drop"}, "path must be"),
        ({"path": "/", "do": "explode"}, "do must be one of corrupt, drop"),
        ({"path": "/"}, "do must be one of"),
        ({"path": "/", "do": "drop:3"}, "nothing behind a colon"),
        ({"path": "/", "do": "status"}, "status takes an HTTP status"),
        ({"path": "/", "do": "status:200"}, "status takes an HTTP status"),
        ({"path": "/", "do": "slow:nan"}, "slow takes a number"),
        ({"path": "/", "do": "truncate:-1"}, "truncate takes a number"),
        ({"path": "/", "do": "truncate:1.5"}, "truncate takes a number"),
        ({"path": "/", "do": "drop", "times": 0}, "times must be"),
        ({"path": "/", "do": "drop", "after": -1}, "after must be"),
        ({"path": "/", "do": "drop", "method": 1}, "method must be"),
        ({"path": "/", "do": "drop", "time": 1}, "not time"),
        ({"path": "/api", "do": "expire"}, "/download"),
        ({"path": "/tasks", "do": "fail-task"}, "export that is created"),
        ({"path": "/export", "do": "stall-task", "method": "GET"}, "export that is created"),
    ],
)
def test_a_misspelt_fault_is_refused_with_a_sentence(calls, fault, words):
    """A fault that silently never happens makes a test pass for the wrong reason."""
    reply = calls.control("POST", "/faults", fault)
    assert reply.status_code == 400
    assert words in reply.json()["error"]
    assert calls.control("GET", "/faults").json() == []


def test_faults_of_the_wire_and_of_tasks_do_not_use_each_other_up():
    """One request may be dropped and another's export fail: each takes its own."""
    faults = Faults()
    faults.add([Fault.from_json({"path": "/export", "do": do}) for do in ("fail-task", "drop")])
    dropped = faults.take_for_wire("POST", "/export_channels")
    assert (dropped and dropped.do.value) == "drop"
    assert faults.take_fate("POST", "/export_channels") is Fate.FAILS
    assert faults.take_fate("POST", "/export_channels") is Fate.NORMAL
