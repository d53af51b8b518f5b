"""The error tree: its shape, and that every error crosses processes unchanged."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator

import pytest

from airflow_provider_chatexport import errors
from airflow_provider_chatexport.errors import ChatExportError


def whole_tree(root: type[ChatExportError] = ChatExportError) -> Iterator[type[ChatExportError]]:
    """Yield a class and all its subclasses."""
    yield root
    for kind in root.__subclasses__():
        yield from whole_tree(kind)


@pytest.mark.parametrize("kind", list(whole_tree()))
@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_an_error_crosses_processes_with_its_facts(kind: type[ChatExportError], through: object) -> None:
    """Executors pickle exceptions: one that loses its facts, or cannot be rebuilt, hides the real failure."""
    error = kind("what failed, where, what to do", task_id="t1", http_status=503)
    again = through(error)
    assert (kind, error.message, "t1", 503) == (type(again), str(again), again.task_id, again.http_status)


def test_only_these_errors_are_retryable() -> None:
    """A retry of any other error costs an export and fails again."""
    assert {
        *("RateLimitedError", "ApiBudgetError", "ServiceUnavailableError"),
        *("DownloadError", "LinkExpiredError", "LakeError"),
    } == {kind.__name__ for kind in whole_tree() if kind.retryable and kind.__module__ == errors.__name__}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Readers choose what to catch from that drawing, so each class must stand below its base class."""
    drawn = {line[match.start() :].split()[0]: match.start() // 4 for line, match in _drawn_lines()}
    depth = len(ChatExportError.__mro__)
    tree = {kind.__name__: len(kind.__mro__) - depth for kind in whole_tree() if kind.__module__ == errors.__name__}
    assert tree == drawn
    assert list(tree) == list(drawn)


def _drawn_lines() -> Iterator[tuple[str, re.Match[str]]]:
    for line in (errors.__doc__ or "").splitlines():
        if match := re.search(r"\b[A-Z]\w+Error\b", line):
            yield line, match
