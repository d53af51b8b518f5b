"""A sandbox of its own for every test that wants one: on a real socket, and started within milliseconds."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import fsspec
import hypothesis
import pytest
import s3_server as s3_servers
import slow_tests
import wheels
from s3_server import S3Server
from wheels import Installed

from airflow_provider_chatexport.core.times import format_rfc3339
from airflow_provider_chatexport.sandbox import Sandbox, SandboxControl, SandboxSettings
from airflow_provider_chatexport.sandbox.chat.world import World

# By default an example of a property fails after 200 ms, which a busy machine exceeds.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


class StartSandbox(Protocol):
    """Starts a sandbox that ends with the test. Arguments are those of ``SandboxSettings``."""

    def __call__(self, **settings: Any) -> Sandbox:
        """Return a running sandbox."""


@pytest.hookimpl(tryfirst=True)  # before options choose by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and run those with a time limit of their own first: at the end, other workers would idle."""
    slow = slow_tests.listed()
    for item in items:
        if slow_tests.function_of(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (item.get_closest_marker("timeout") is None, item.get_closest_marker("slow") is None))


@pytest.fixture(scope="session")
def sandbox_world() -> World:
    """Return the shipped chat, unchanged, to compare with."""
    return World.shipped()


@pytest.fixture
def start_sandbox() -> Iterator[StartSandbox]:
    """Yield a factory of quick sandboxes without rate limits, unless the test says otherwise."""
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Sandbox:
            chosen = SandboxSettings(**{"task_s": 0.02, "rate_limit": False, **settings})
            return running.enter_context(Sandbox(chosen))

        yield start


@pytest.fixture
def sandbox(start_sandbox: StartSandbox) -> Sandbox:
    """Return a fresh sandbox over the shipped chat."""
    return start_sandbox()


@pytest.fixture
def prolific(start_sandbox: StartSandbox, tmp_path: Path) -> Sandbox:
    """Return a sandbox in which one user wrote 10,001 messages, one more than an export has, and another user one."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    lines = (
        {
            "cid": "messaging:long",
            "id": str(uuid.UUID(int=number)),
            "at": format_rfc3339(start + timedelta(minutes=number)),
            "author": "Quiet" if number == 0 else "Prolific",
            "kind": "regular",
            "text": f"line {number}",
            "reply_to": None,
        }
        for number in range(10_002)
    )
    path = tmp_path / "long.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return start_sandbox(data=path)


@pytest.fixture
def control(sandbox: Sandbox) -> SandboxControl:
    """Return the control calls of ``sandbox``."""
    return sandbox.control


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the wheel of this checkout."""
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path) -> Installed:
    """Return an environment with the wheel; the first test that wants one waits two seconds for it."""
    return wheels.install(wheel, wheel.parent / "environment")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Return a real S3 server; the first test that wants one waits some seconds for it."""
    with s3_servers.running() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Return the server, with the environment that leads there and no file system that leads elsewhere."""
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    file_systems = fsspec.get_filesystem_class("s3")
    file_systems.clear_instance_cache()
    yield s3_server
    file_systems.clear_instance_cache()
