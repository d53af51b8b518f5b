"""What tests of the command line share: how a command ended, and what an error looks like."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHATEXPORT = str(Path(sys.executable).with_name("chatexport"))
UBUNTU = "livestream:ubuntu"
WINDOW = ["--since", "2025-01-01T09:00:00Z", "--until", "2025-01-01T10:00:00Z"]
REPORT_KEYS = {
    "load_id", "window", "lines", "rows", "rejected", "out_of_window", "other_entities", "duplicates", "entities",
    "files", "bytes_in", "seconds",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert 1 == self.out.count("\n"), "one JSON object on one line, and nothing else"
        return json.loads(self.out)


Run = Callable[..., Ran]


def assert_one_sentence(ran: Ran, code: int, *parts: str) -> None:
    """Check that an error is one line on stderr that contains these parts, and that stdout is empty."""
    assert (code, "", 1) == (ran.code, ran.out, ran.err.count("\n")), ran.err
    assert ran.err.startswith("chatexport: ")
    for part in parts:
        assert part in ran.err
    assert "Traceback" not in ran.err
    assert "error inside" not in ran.err
