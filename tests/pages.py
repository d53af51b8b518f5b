"""The pages that users read, and the code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a user of the package reads. CONTRIBUTING.md and the like are for people with a checkout.
PAGES = ("README.md", "dbt/README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md"))))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line of a block of shell commands."""

    page: str
    text: str

    @property
    def program(self) -> str:
        return self.text.split()[0]


def blocks(*pages: str, language: str | None = None) -> list[Block]:
    """Return the blocks of pages, by default of all, in their order."""
    found = [Block(page, *block) for page in pages or PAGES for block in _BLOCK.findall((ROOT / page).read_text())]
    return [block for block in found if language in {None, block.language}]


def commands(*pages: str) -> list[Command]:
    """Return the shell commands of pages, by default of all, in their order."""
    return [Command(block.page, line) for block in blocks(*pages, language="sh") for line in _lines(block.text)]


def _lines(text: str) -> Iterator[str]:
    for line in re.sub(r"(\\|(?<= )\|)\n\s*", r"\1 ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            yield line
