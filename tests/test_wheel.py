"""What people install, and what a package index shows of it."""

from __future__ import annotations

import email
import posixpath
import re
import zipfile
from pathlib import Path

import make_dbt
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow_provider_chatexport"


LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def archive(wheel: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def urls(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the project's addresses, by name."""
    return dict(url.split(", ") for url in metadata_of(archive).get_all("Project-URL", []))


def metadata_of(archive: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    return email.message_from_bytes(archive.read(name))


def links_of(markdown: str) -> list[str]:
    return LINK.findall(CODE.sub("", markdown))


def anchors_of(markdown: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def check_in_checkout(page: str, target: str, address: str) -> None:
    """Assert that a link of a page leads to a file of the checkout, and to a heading of it.

    :param address: address of the repository; a link may begin with it.
    """
    path, _, anchor = target.partition("#")
    if own := re.match(re.escape(address) + r"/(?:blob|raw|tree)/main/(.+)", path):
        file = ROOT / own[1]
    elif re.match(r"https?:", path):
        return
    else:
        file = ROOT / posixpath.dirname(page) / path if path else ROOT / page
    assert file.exists(), (page, target)
    if anchor:
        assert anchor in anchors_of(file.read_text()), (page, target)


def test_links_lead_somewhere_from_a_package_index(archive: zipfile.ZipFile, urls: dict[str, str]) -> None:
    """It shows the README without the repository around it. Airflow's list of providers links to the documentation."""
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} == urls.keys()
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    targets = links_of(str(metadata_of(archive).get_payload()))
    assert [] == [target for target in targets if not re.match(r"https?://", target)]
    for target in targets:
        check_in_checkout("README.md", target, urls["Source"])


@pytest.mark.parametrize(
    "page",
    [
        str(path.relative_to(ROOT))
        for pattern in ("*.md", "docs/**/*.md", "dbt/*.md", "benchmarks/*.md")
        for path in sorted(ROOT.glob(pattern))
    ],
)
def test_links_of_a_page_lead_somewhere_in_the_checkout(page: str, urls: dict[str, str]) -> None:
    """A link to a page or heading that was renamed would be dead. ``test_site`` does the same for the site."""
    for target in links_of((ROOT / page).read_text()):
        check_in_checkout(page, target, urls["Source"])


def test_links_of_installed_pages_lead_somewhere(archive: zipfile.ZipFile, urls: dict[str, str]) -> None:
    """The wheel has the examples in another folder than the repository, and lacks the benchmarks, for example."""
    names = set(archive.namelist())
    pages = [name for name in names if name.endswith(".md") and name.startswith(f"{PACKAGE}/")]
    assert len(pages) > 15
    n_inside = 0
    for page in pages:
        for target in links_of(archive.read(page).decode()):
            path, _, anchor = target.partition("#")
            if not path or re.match(r"https?:", path):
                check_in_checkout(page.removeprefix(f"{PACKAGE}/"), target, urls["Source"])
                continue
            name = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
            assert name in names, (page, target)
            assert not anchor or anchor in anchors_of(archive.read(name).decode()), (page, target)
            n_inside += 1
    assert n_inside > 40


def test_the_dbt_project_is_installed(archive: zipfile.ZipFile) -> None:
    """Installed from a package index there is no checkout to copy from."""
    wanted = {f"{PACKAGE}/dbt/{path}" for path in make_dbt.files()}
    others = ("README.md", "requirements.txt", "models/overview.md", "models/marts/metrics.yml")
    assert wanted | {f"{PACKAGE}/dbt/{path}" for path in others} <= set(archive.namelist())


def test_examples_pages_and_notebooks_are_installed(archive: zipfile.ZipFile) -> None:
    """A user without the repository has them next to the code. Airflow finds ``example_dags`` of a provider itself."""
    installed = {name.removeprefix(f"{PACKAGE}/") for name in archive.namelist()}
    for folder, inside, pattern in (
        ("dags", "example_dags", "*.py"),
        ("docs", "docs", "**/*.md"),
        ("notebooks", "notebooks", "*.ipynb"),
    ):
        files = {f"{inside}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).glob(pattern)}
        assert files
        assert set() == files - installed
