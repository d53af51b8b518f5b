"""The documentation site builds, and every link of it leads somewhere."""

from __future__ import annotations

import html
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"


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


def test_every_link_and_picture_of_the_site_is_there(site: Path) -> None:
    """MkDocs checks what it makes from Markdown. This checks what a browser finds: menus and assets as well."""
    pages = {page: page.read_text() for page in site.rglob("*.html") if page.name != "404.html"}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    assert len(pages) > 20
    for page, text in pages.items():
        for target in re.findall(r'\b(?:href|src)="(?!https?:|mailto:|data:)([^"]*)"', text):
            path, _, anchor = html.unescape(target).partition("#")
            file = (page.parent / unquote(path)).resolve() if path else page
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), (page, target)
            # The theme links to the end of a page by a name that it gives when the page is shown.
            assert not anchor or anchor in anchors.get(file, {anchor}) | {"__"}, (page, target)


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """Readers of an internal copy have no network, and no other host should learn what they read.

    Regression: the theme asked GitHub's API for the number of stars, wherever an element had this attribute.
    """
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "fonts.googleapis" not in text
        assert 'data-md-component="source"' not in text
        loaded = re.findall(
            r'<(?:script|img|iframe|link rel="(?:stylesheet|icon|preconnect)")[^>]*="(http[^"]*)"', text
        )
        assert [] == loaded, page


def test_links_have_the_titles_of_pages(site: Path) -> None:
    """The repository has names of files, which the site does not show anywhere else."""
    assert '<a href="airflow/">Airflow</a>' in (site / "index.html").read_text()
    assert ">docs/" not in (site / "index.html").read_text()
