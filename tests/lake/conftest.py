"""Lakes on a disk and in an object store, a client of the sandbox, and exports made through it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lakes import LakeProbe, client_of, exports_of
from s3_server import S3Server, new_lake

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.sandbox import Sandbox


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LakeProbe:
    """A lake in a bucket of a real S3 server, and a temporary folder of its own.

    A test whose clock is days ahead deletes old work folders in the temporary folder, and those of other tests are old.
    """
    (own := tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    return LakeProbe(new_lake())


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[ChatExportClient]:
    with client_of(sandbox) as client:
        yield client


@pytest.fixture
def exported(client: ChatExportClient) -> Callable[..., list[Receipt]]:
    """Exports a window, waits for it, and returns the receipts."""
    return functools.partial(exports_of, client)


@pytest.fixture
def load(
    client: ChatExportClient, exported: Callable[..., list[Receipt]], lake: LakeProbe
) -> Callable[..., LoadReport]:
    """Exports a window, and loads it."""

    def load(since: str, until: str, **others: Any) -> LoadReport:
        return pipeline.load_exports(client, exported(since, until, **others), lake_uri=lake.uri)

    return load


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack
