"""A dbt project made by ``chatexport dbt init``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dbt_project import Project

from airflow_provider_chatexport.cli import main


@pytest.fixture
def init(tmp_path: Path) -> Callable[..., Project]:
    """``init(lake)``: a new project over a lake."""

    def make(lake: str, **environment: str) -> Project:
        folder = tmp_path / "project"
        main(["dbt", "init", str(folder), "--lake", lake])
        return Project(folder, environment)

    return make
