"""What tests of several formats share."""

from __future__ import annotations

import pytest
from published import configure
from s3_server import S3Server


@pytest.fixture
def rest_catalog(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A real REST catalog: that of the S3 server. It decides where metadata lies."""
    return configure(monkeypatch, "rest", **s3.new_warehouse())
