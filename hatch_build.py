"""Hatchling's hooks for links: what leads to another file of the repository leads nowhere in a wheel or on an index.

The pages keep the relative links that work in a checkout and on GitHub. A built package gets copies, in which a link to
a file that the wheel brings leads to its place there, and any other link to the repository.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Hands on the README with absolute links."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the field ``readme``."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = links_from_elsewhere(text, "README.md", home=metadata["urls"]["Source"], places={})
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the pages into a wheel with links that work there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Replace the pages by copies. An editable installation has none: its pages are those of the checkout."""
        if version == "editable":
            return
        packages = {package: package for package in self.build_config.packages}
        places = {**self.build_config.target_config["force-include"], **packages}
        home = self.metadata.core.urls["Source"]
        self._copies = tempfile.TemporaryDirectory()
        for number, page in enumerate(self._pages(places)):
            copy = Path(self._copies.name) / f"{number}.md"
            text = (Path(self.root) / page).read_text(encoding="utf-8")
            copy.write_text(links_from_elsewhere(text, page, home=home, places=places), encoding="utf-8")
            build_data["force_include"][str(copy)] = _place_of(page, places)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the copies."""
        if version != "editable":
            self._copies.cleanup()

    def _pages(self, places: Mapping[str, str]) -> Iterator[str]:
        """Yield the Markdown files in the folders of the repository that the wheel brings."""
        for folder in places:
            for path in sorted((Path(self.root) / folder).rglob("*.md")):
                yield path.relative_to(self.root).as_posix()


def links_from_elsewhere(text: str, page: str, *, home: str, places: Mapping[str, str]) -> str:
    """Return Markdown whose links and pictures are right where the page is copied to.

    :param page: path of the page in the repository.
    :param home: address of the repository.
    :param places: folder of the repository -> where its copy is. Files of other folders are at their address only.
    """

    def right(link: re.Match[str]) -> str:
        path, hash_, anchor = link[3].partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if (place := _place_of(target, places)) is not None:
            address = posixpath.relpath(place, posixpath.dirname(_place_of(page, places) or ""))
        else:
            address = f"{home}/{'raw' if link[1] else 'blob'}/main/{target}"
        return f"{link[1]}[{link[2]}]({address}{hash_}{anchor})"

    return _LINK.sub(right, text)


def _place_of(path: str, places: Mapping[str, str]) -> str | None:
    for folder, place in places.items():
        if path == folder or path.startswith(f"{folder}/"):
            return f"{place}{path.removeprefix(folder)}"
    return None
