"""The documentation site builds, and every link of it leads somewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert MKDOCS.exists(), "the builder of the site is missing; run `make .venv-docs/.ready`"
    folder = tmp_path_factory.mktemp("site")
    # A proxy that nothing listens on: whatever a build fetched would fail.
    offline = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}
    environment = {**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"}
    command = [MKDOCS, "build", "--strict", "--site-dir", folder]
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert 0 == ran.returncode, ran.stderr
    return folder


def test_the_site_has_a_home_the_api_and_what_the_pages_link_to(site: Path) -> None:
    """MkDocs fails on a link that leads nowhere; pages from outside of docs/ must be there."""
    assert "In a DAG" in (site / "index.html").read_text()
    api = (site / "api" / "index.html").read_text()
    for name in (
        "Lake.sql",
        "ExportChannelsOperator",
        "ChatExportHook",
        "ExportTaskSensor",
        "SandboxControl",
        "errors.LakeError",
    ):
        assert f'{name}"' in api, name
    assert "Astronomer Cosmos" in (site / "dbt" / "index.html").read_text()
    for page in ("dbt", "dags/chatexport_dbt.py", "benchmarks", "CHANGELOG"):
        assert (site / "repository" / page / "index.html").exists(), page
    assert (site / "repository" / "notebooks" / "tour.ipynb").read_bytes() == (
        ROOT / "notebooks" / "tour.ipynb"
    ).read_bytes()


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Readers of an internal copy have no network, and no other host should learn what they read."""
    for page in ("index.html", "api/index.html", "tables/index.html"):
        text = (site / page).read_text()
        assert "fonts.googleapis" not in text
        assert not [part for part in text.split("<")[1:] if part.startswith("script") and 'src="http' in part]
