"""Give the documentation site its pages: those of docs/, and every file of the repository that they link to.

MkDocs calls the functions that begin with ``on_``; ``mkdocs.yml`` names this file. Pages keep the relative links that
work in the repository and in the wheel. Here they become links of the site. MkDocs then checks all of them, so a link
that leads nowhere ends the build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
STYLE = ROOT / "scripts" / "site.css"
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
_NAMED = re.compile(r"\[([\w./-]+\.md)\]\((?!https?:)([^)#\s]+)((?:#[^)\s]*)?)\)")
_LANGUAGES = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml"}
_AS_THEY_ARE = (".md", ".png", ".ipynb")

# What users import: heading -> names.
API = {
    "The lake": ["lake.Lake"],
    "Operators": [
        "task_groups.chat_export_to_lake",
        "operators.export.ExportChannelsOperator",
        "operators.export.ExportUsersOperator",
        "operators.load.LoadExportOperator",
        "operators.publish.PublishLakeOperator",
        "operators.channels.ListChannelsOperator",
        "operators.gaps.ListGapsOperator",
        "operators.windowed.SplitWindowOperator",
        "core.discovery.ChannelQuery",
        "operators.params.window_params",
        "operators.retry_policy.ServiceRetryPolicy",
    ],
    "Hook, trigger and sensor": [
        "hooks.chatexport.ChatExportHook",
        "triggers.export.ExportTaskTrigger",
        "sensors.export.ExportTaskSensor",
    ],
    "Sandbox": ["sandbox.Sandbox", "sandbox.SandboxSettings", "sandbox.SandboxControl"],
    "Errors": ["errors"],
}

# Page of the site -> file or folder of the repository.
_sources: dict[str, str] = {}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, the API page, and what the pages link to outside of docs/."""
    _sources.clear()
    for path in _linked():
        page = _page_of(path)
        _sources[page] = path
        if not path.startswith("docs/") or (ROOT / path).is_dir():
            files.append(File.generated(config, page, content=_content(path)))
    files.append(File.generated(config, "api.md", content=_api()))
    files.append(File.generated(config, STYLE.name, content=STYLE.read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn the links of a page into links of the site, which has titles where the repository has names of files."""
    if page.parent is None:
        page.meta.setdefault("hide", ["navigation"])  # on a wide screen: the page itself would be all of it
    source = _sources.get(page.file.src_uri)
    if source is None or Path(source).suffix != ".md":
        return markdown

    def of_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        if not (ROOT / path).exists():
            return link[0]  # MkDocs reports it
        return posixpath.relpath(_page_of(path), posixpath.dirname(page.file.src_uri) or ".")

    return _LINK.sub(of_site, _NAMED.sub(lambda link: f"[{_title(source, link[2])}]({link[2]}{link[3]})", markdown))


def on_post_page(output: str, **_: object) -> str:
    """Keep the theme from asking GitHub's API for stars and releases: readers of an internal copy have no network."""
    return output.replace(' data-md-component="source"', "")


def on_post_template(output_content: str, **_: object) -> str:
    """Do the same for the page of addresses that do not exist."""
    return on_post_page(output_content)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Drop the colons that announce an example in docstrings."""
    return html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>") if page.file.src_uri == "api.md" else html


def _linked() -> Iterator[str]:
    """Yield the paths below ROOT of all pages, and of what they link to, however far."""
    waiting = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        yield path
        if path.endswith(".md"):
            for link in _LINK.findall((ROOT / path).read_text()):
                target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
                if target not in known and (ROOT / target).exists() and not target.endswith(".png"):
                    known.add(target)
                    waiting.append(target)


def _page_of(path: str) -> str:
    """Return the page of the site for a file or folder of the repository."""
    if path == "README.md":
        return "index.md"
    # dbt/README.md and docs/dbt.md would both be /dbt/.
    page = path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
    if (ROOT / path).is_dir():
        return f"{page}/index.md"
    return page if page.endswith(_AS_THEY_ARE) else f"{page}.md"


def _title(source: str, link: str) -> str:
    """Return the heading of the page that a page links to, or the link itself if there is no such page."""
    page = ROOT / posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return page.read_text().splitlines()[0].lstrip("# ") if page.is_file() else link


def _content(path: str) -> str:
    """Return a page: Markdown as it is, a folder as a list, and anything else as code."""
    file = ROOT / path
    if file.is_dir():
        entries = [each for each in sorted(file.iterdir()) if each.suffix == ".md"]
        rows = [f"- [{each.read_text().splitlines()[0].lstrip('# ')}]({each.name})" for each in entries]
        return "\n".join([f"# {file.name.capitalize()}", "", *rows])
    if file.suffix in _AS_THEY_ARE:
        return file.read_text()
    return f"# {file.name}\n\n```{_LANGUAGES.get(file.suffix, 'text')}\n{file.read_text()}\n```\n"


def _api() -> str:
    parts = ["# Python API", "What you can import from `airflow_provider_chatexport`. Everything else may change."]
    for heading, names in API.items():
        parts += [f"## {heading}", *(f"::: airflow_provider_chatexport.{name}" for name in names)]
    return "\n\n".join(parts)
