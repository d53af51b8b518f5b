"""The error tree: every error crosses processes whole."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from airflow_provider_chatexport import errors
from airflow_provider_chatexport.errors import ChatExportError


def whole_tree(root: type[ChatExportError] = ChatExportError) -> Iterator[type[ChatExportError]]:
    yield root
    for kind in root.__subclasses__():
        yield from whole_tree(kind)


@pytest.mark.parametrize("kind", list(whole_tree()))
@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_an_error_crosses_processes_with_its_facts(kind: type[ChatExportError], through: object) -> None:
    """Executors pickle exceptions; one that loses its facts, or cannot be rebuilt, hides the real failure."""
    error = kind("what failed, where, what to do", task_id="t1", http_status=503)
    again = through(error)
    assert (kind, error.message, "t1", 503) == (type(again), str(again), again.task_id, again.http_status)


def test_only_these_are_worth_trying_again() -> None:
    """A retry of anything else spends an export and fails alike."""
    assert {"RateLimitedError", "ServiceUnavailableError", "DownloadError", "LinkExpiredError", "LakeError"} == {
        kind.__name__ for kind in whole_tree() if kind.retryable
    }


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """People choose what to catch from that drawing."""
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}
    ours = {kind.__name__ for kind in whole_tree() if kind.__module__ == errors.__name__}
    assert ours == drawn
