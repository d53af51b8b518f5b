"""``SandboxControl``: every control call from Python, its types, and the errors of its callers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import orjson
import pytest
from sandbox_calls import Calls

from airflow_provider_chatexport import sandbox as package
from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.errors import CallError, ServiceUnavailableError, UnexpectedReplyError
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl, SandboxSettings
from airflow_provider_chatexport.sandbox.web.faults import Fault

SMALL = "messaging:rust"
TASK = "/api/v2/tasks/x"


def test_the_package_has_three_names_and_no_others() -> None:
    """They are public, and a typo must not look like one of them."""
    assert [getattr(package, name).__name__ for name in package.__all__] == package.__all__
    with pytest.raises(AttributeError, match="Sandboks"):
        _ = package.Sandboks  # type: ignore[attr-defined]


def test_importing_the_package_imports_no_server() -> None:
    """Every pytest run of a project that has the package installed imports it."""
    heavy = {"starlette", "uvicorn", "httpx", "msgspec", "duckdb", "pyarrow", "airflow"}
    code = f"import sys, airflow_provider_chatexport.sandbox.pytest_plugin; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_faults_are_set_listed_and_cleared(calls: Calls) -> None:
    """A test asserts that all of its faults were used up."""
    calls.control.fault("status:503", "/api/v2/tasks", method="get", times=2, after=1)
    calls.control.fault("drop", "/api/v2/chat")
    first, second = calls.control.faults()
    assert first == Fault(do="status:503", path="/api/v2/tasks", method="GET", times=2, after=1)
    assert second == Fault(do="drop", path="/api/v2/chat", method=None, times=1, after=0)
    assert [404, 503] == [calls.http.get(TASK).status_code for _ in range(2)]
    assert [1, 1] == [fault.times for fault in calls.control.faults()]
    calls.control.clear_faults()
    assert calls.control.faults() == []
    assert calls.http.get(TASK).status_code == 404


def test_a_reset_brings_back_the_start(start_sandbox: Callable[..., Sandbox], calls_to: Callable[..., Calls]) -> None:
    """A test suite shares one sandbox, as with every emulator: what one test did must not reach the next."""
    sandbox = start_sandbox(faults=["status:503 /api/v2/tasks"])
    calls, control = calls_to(sandbox), sandbox.control
    assert 503 == calls.http.get(TASK).status_code
    created = calls.export(SMALL)
    before, link = calls.file(created), calls.link(created)
    control.add_message(SMALL, id="late", text="late")
    control.set_retention(old_messages=timedelta(days=1))
    started = control.advance_clock(timedelta(days=2)) - timedelta(days=2)
    assert calls.file(calls.export(SMALL)) != before
    control.fault("drop", "/api/v2/chat")
    control.reset()
    assert ["status:503"] == [fault.do for fault in control.faults()]
    assert [] == control.requests()
    assert timedelta(0) <= control.now() - started < timedelta(hours=1)
    control.clear_faults()
    assert 404 == calls.http.get(f"/api/v2/tasks/{created.json()['task_id']}").status_code
    assert 403 == httpx.get(link).status_code
    again = [orjson.loads(line) for line in calls.file(calls.export(SMALL)).splitlines()]
    assert sandbox.world.message("late") is None
    assert len(before.splitlines()) == len(again)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop /api/v2", Fault(do="drop", path="/api/v2")),
        (
            " status:503   /api/v2/tasks after=1 times=2 method=get",
            Fault(do="status:503", path="/api/v2/tasks", method="GET", times=2, after=1),
        ),
    ],
)
def test_a_fault_is_written_in_one_line(text: str, fault: Fault) -> None:
    """A command line and a CI recipe have no JSON."""
    assert fault == Fault.parse(text)
    assert [fault] == SandboxSettings(faults=[text]).read_faults()


@pytest.mark.parametrize("text", ["", "drop", "drop /a 2", "drop /a times=x", "drop /a times=0", "vanish /a", "drop a"])
def test_a_fault_that_cannot_be_read_is_refused_at_the_start(text: str) -> None:
    """A fault that silently never happens makes a test pass for the wrong reason."""
    with pytest.raises(CallError, match=r"the fault '.*' cannot be read: .*; write one such as"):
        SandboxSettings(faults=[text])


def test_requests_are_listed_by_path_and_cleared(calls: Calls) -> None:
    """A test counts the requests to one endpoint."""
    calls.http.get(TASK)
    calls.export(SMALL)
    (request,) = calls.control.requests("/api/v2/tasks")
    assert (request.method, request.path, request.status, request.fault) == ("GET", TASK, 404, None)
    assert "authorization" in request.headers
    assert len(calls.control.requests()) == 2
    calls.control.clear_requests()
    assert calls.control.requests() == []


def test_the_clock_moves_by_a_timedelta(start_sandbox: Callable[..., Sandbox]) -> None:
    """Exactly, if it stands still otherwise."""
    control = start_sandbox(frozen_clock=True).control
    before = control.now()
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=10)
    after = control.advance_clock(timedelta(days=60, milliseconds=1))
    assert after - before == timedelta(days=60, milliseconds=1)
    assert control.now() == after


def test_a_message_is_added_edited_and_deleted(sandbox: Sandbox) -> None:
    """Each call shows in the world at once, with times of any zone."""
    control = sandbox.control
    at = datetime(2025, 1, 8, 12, tzinfo=timezone(timedelta(hours=2)))
    added = control.add_message(SMALL, text="late", user_id="newcomer", created_at=at, message_id="a custom field")
    assert added == sandbox.world.message(added["id"])
    assert parse_rfc3339(added["created_at"]) == at
    assert added["custom"] == {"message_id": "a custom field"}
    edited = control.edit_message(added["id"], text="later", latest_reactions=[{"user_id": "u", "type": "like"}])
    assert (edited["text"], edited["reaction_counts"]) == ("later", {"like": 1})
    control.delete_message(added["id"])
    assert (sandbox.world.message(added["id"]) or {})["type"] == "deleted"
    control.delete_message(added["id"], hard=True)
    assert sandbox.world.message(added["id"]) is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda control: control.fault("explode", "/"), "do must be one of budget, corrupt, drop"),
        (lambda control: control.fault("drop", "tasks"), "path must begin with a slash"),
        (lambda control: control.advance_clock(timedelta(seconds=-1)), "advance_s: expected `float` >= 0"),
        (lambda control: control.edit_message("none-such", text="x"), "no message with the id 'none-such'"),
        (lambda control: control.add_message("messaging:none-such"), "cid of a channel that exists"),
        (lambda control: control.add_message(SMALL, text=5), "text: expected `str`, got `int`"),
        (lambda control: control.add_message(SMALL, created_at=datetime(2025, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda control: control.add_message(SMALL, mood={1, 2}), "a set cannot be a field"),
    ],
)
def test_a_refused_call_is_one_sentence(sandbox: Sandbox, call: Callable[[SandboxControl], Any], words: str) -> None:
    """It says which call was wrong and why, and changes nothing."""
    with pytest.raises(CallError) as refused:
        call(sandbox.control)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sandbox.control.faults() == []


def test_a_url_without_a_sandbox_is_one_sentence(other_url: str) -> None:
    """Nothing listens, something else answers, or the URL is not one."""
    with SandboxControl("http://127.0.0.1:9") as control:
        assert not control.is_ready()
        with pytest.raises(ServiceUnavailableError, match=r"no sandbox answers at http://127\.0\.0\.1:9"):
            control.faults()
        with pytest.raises(ServiceUnavailableError, match="within 0 s"):
            control.wait_until_ready(timeout_s=0)
    with SandboxControl(other_url) as control, pytest.raises(UnexpectedReplyError, match="is not a sandbox"):
        control.is_ready()
    for wrong in ("localhost:8900", "http://[::1", ""):
        with pytest.raises(CallError, match="is not the URL of a sandbox"):
            SandboxControl(wrong)


@pytest.fixture
def other_url(sandbox: Sandbox) -> str:
    """Return the URL of a server that has no control calls."""
    return f"{sandbox.url}/elsewhere"


def test_a_sandbox_of_another_process_is_controlled_by_its_url() -> None:
    """A test of a DAG on a whole Airflow starts the sandbox as a service."""
    code = "from airflow_provider_chatexport.cli import main; main(['sandbox', '--port', '0'])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with SandboxControl(f"{url}/") as control:
            control.wait_until_ready()
            control.fault("status:503", "/api/v2/tasks")
            assert len(control.faults()) == 1
            process.terminate()
            process.wait()
            assert not control.is_ready()
