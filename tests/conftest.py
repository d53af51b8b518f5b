"""What every test may use: a sandbox of its own on a real socket, started within milliseconds."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.server import Sandbox, SandboxSettings


class StartSandbox(Protocol):
    """Starts a sandbox that ends with the test; arguments are those of ``SandboxSettings``."""

    def __call__(self, **settings: Any) -> Sandbox: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that say how long they may take come first: a long one at the end would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(scope="session")
def sandbox_world() -> World:
    """The shipped chat, unchanged. For comparing; each sandbox gets a copy."""
    return World.load()


@pytest.fixture
def start_sandbox(sandbox_world: World) -> Iterator[StartSandbox]:
    """A factory of sandboxes that are quick and refuse nobody for being quick, unless told otherwise."""
    with contextlib.ExitStack() as running:

        def start(**settings: Any) -> Sandbox:
            chosen = SandboxSettings(**{"task_s": 0.02, "rate_limit": False, **settings})
            # Changes replace a world's state and never reach into its past, so a shallow copy is a world of its own.
            world = copy.copy(sandbox_world) if chosen.data is None and chosen.messages is None else None
            return running.enter_context(Sandbox(chosen, world=world))

        yield start


@pytest.fixture
def sandbox(start_sandbox: StartSandbox) -> Sandbox:
    """A fresh sandbox over the shipped chat."""
    return start_sandbox()
