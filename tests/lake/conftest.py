"""Lakes on a disk and in an object store, a client of the sandbox, and exports made through it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from lakes import LakeProbe, client_of, exports_of
from moto.server import ThreadedMotoServer

from airflow_provider_chatexport import pipeline
from airflow_provider_chatexport.api.client import ChatExportClient
from airflow_provider_chatexport.core.receipt import Receipt
from airflow_provider_chatexport.lake.load.report import LoadReport
from airflow_provider_chatexport.sandbox import Sandbox


@pytest.fixture
def lake(tmp_path: Path) -> LakeProbe:
    return LakeProbe(str(tmp_path / "lake"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, closing: contextlib.ExitStack, tmp_path: Path) -> LakeProbe:
    """A lake in a bucket of an S3 server of its own, and a temporary folder of its own.

    A test whose clock is days ahead deletes old work folders in the temporary folder, and those of other tests are old.
    """
    (own := tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(own))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    closing.callback(server.stop)
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fs = fsspec.filesystem("s3")
    closing.callback(fs.clear_instance_cache)
    name = f"chat-{uuid.uuid4().hex}"  # within a process, a server's buckets outlive it
    fs.mkdir(name)
    return LakeProbe(f"s3://{name}/lake")


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
