"""Lakes that tasks reach through an Airflow connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.hooks.lake_storage import lake_filesystem
from airflow_provider_chatexport.operators.export import ExportChannelsOperator
from airflow_provider_chatexport.sandbox import Sandbox


@pytest.mark.parametrize("conn_id", [None, "", "None"])
def test_without_a_connection_the_environment_says_how(conn_id: str | None) -> None:
    """A template renders a missing connection as text."""
    assert lake_filesystem("s3://chat/lake", conn_id) is None


@pytest.mark.parametrize(
    ("lake", "sentence"),
    [
        ("/data/lake", r"the lake /data/lake is a local folder; leave lake_conn_id out"),
        ("nothing://chat/lake", r"no installed provider serves nothing://; install one"),
    ],
)
def test_a_connection_that_cannot_serve_the_lake_is_refused(lake: str, sentence: str) -> None:
    """It would be ignored, and the load would use other credentials than the ones that were meant."""
    with pytest.raises(CallError, match=sentence):
        lake_filesystem(lake, "lake_store")


def test_no_export_is_spent_on_a_lake_that_cannot_be_written(
    sandbox: Sandbox, set_connection: Callable[..., None], tmp_path: object
) -> None:
    """An export counts against the limit of the app, and the load after it would fail."""
    set_connection(login=sandbox.api_key, password=sandbox.api_secret, host=sandbox.url)
    task = ExportChannelsOperator(
        task_id="export",
        channels=["livestream:ubuntu"],
        lake="/proc/lake",
        since="2025-01-01T09:00:00Z",
        until="2025-01-01T10:00:00Z",
    )
    with pytest.raises(Exception, match="cannot write the lake at /proc/lake"):
        task.execute({})
    assert [] == [each for each in sandbox.control.requests() if each["method"] == "POST"]
