"""What people install, and what a package index shows of it."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import make_dbt
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_chatexport"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_links_lead_somewhere_from_a_package_index(wheel: zipfile.ZipFile) -> None:
    """It shows the README without the repository around it. Airflow's list of providers links to the documentation."""
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} == urls.keys()
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    for target in re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload())):
        assert re.match(r"https?://", target), target
        if own := re.match(re.escape(urls["Source"]) + r"/(?:blob|raw)/main/([^#]+)", target):
            assert (ROOT / own[1]).exists(), target


def test_the_dbt_project_is_installed(wheel: zipfile.ZipFile) -> None:
    """Installed from a package index there is no checkout to copy from."""
    wanted = {f"{PACKAGE}/dbt/{path}" for path in make_dbt.files()}
    others = ("README.md", "requirements.txt", "models/overview.md", "models/marts/metrics.yml")
    assert wanted | {f"{PACKAGE}/dbt/{path}" for path in others} <= set(wheel.namelist())


def test_examples_pages_and_notebooks_are_installed(wheel: zipfile.ZipFile) -> None:
    """A user without the repository has them next to the code. Airflow finds ``example_dags`` of a provider itself."""
    installed = {name.removeprefix(f"{PACKAGE}/") for name in wheel.namelist()}
    for folder, inside, pattern in (
        ("dags", "example_dags", "*.py"),
        ("docs", "docs", "**/*.md"),
        ("notebooks", "notebooks", "*.ipynb"),
    ):
        files = {f"{inside}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).glob(pattern)}
        assert files
        assert set() == files - installed
