"""Hatchling's hook for the README: on a package index, links between files of the repository lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Hands on the README with absolute links."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the field ``readme``."""
        home = metadata["urls"]["Source"]
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute_links(text, home)}


def absolute_links(text: str, home: str) -> str:
    """Return Markdown whose links and pictures lead to the repository.

    :param home: address of the repository.
    """
    return _RELATIVE_LINK.sub(
        lambda link: f"{link[1]}[{link[2]}]({home}/{'raw' if link[1] else 'blob'}/main/{link[3]})", text
    )
