"""The picture of a lake's coverage: a row per channel, time to the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageRun

# Okabe and Ito's colours, which people tell apart whatever colours they see.
COLORS: Final = {"loaded": "#56B4E9", "loaded again": "#0072B2", "missing": "#D55E00"}
MAX_LABELS: Final = 60
_ROW_IN: Final = 0.26
_MAX_HEIGHT_IN: Final = 13.0
_LONGEST_LABEL: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A channel: its bars as begin, width (both in days, as matplotlib counts) and kind; ``label`` if there is room."""

    label: str
    bars: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageMap:
    """What is drawn, top row first. ``begin`` and ``end`` are None where nothing is covered."""

    rows: tuple[Row, ...]
    begin: datetime | None
    end: datetime | None
    labelled_every: int
    n_gaps: int
    n_with_gaps: int


def layout(found: Mapping[str, Sequence[CoverageRun]]) -> CoverageMap:
    """Channels with gaps come first, the longest gap on top: those must have a label even among hundreds."""
    moments = [moment for each in found.values() for stretch in each for moment in (stretch.since, stretch.until)]
    known = [moment for moment in moments if moment != BEGINNING]
    end = max(known, default=None)
    begin = min(known, default=None)
    if begin is not None and begin == end:
        begin = begin - timedelta(days=1)  # all there is has no begin: there is no shorter span to show
    gaps = {cid: [each for each in of_it if not each.n_claims] for cid, of_it in found.items()}
    missing = {cid: sum((each.until - each.since for each in of_it), timedelta()) for cid, of_it in gaps.items()}
    ordered = sorted(found, key=lambda cid: (-missing[cid], cid))
    every = -(-len(ordered) // MAX_LABELS) if ordered else 1
    rows = []
    for number, cid in enumerate(ordered):
        rows.append(
            Row(label=_short(cid) if number % every == 0 else "", bars=tuple(_bar(each, begin) for each in found[cid]))
        )
    return CoverageMap(
        rows=tuple(rows),
        begin=begin,
        end=end,
        labelled_every=every,
        n_gaps=sum(map(len, gaps.values())),
        n_with_gaps=sum(map(bool, gaps.values())),
    )


def _short(cid: str) -> str:
    """Ids differ at their ends more often than in the middle."""
    half = _LONGEST_LABEL // 2
    return cid if len(cid) <= _LONGEST_LABEL else f"{cid[:half]}…{cid[1 - half :]}"


def _bar(stretch: CoverageRun, begin: datetime | None) -> tuple[float, float, str]:
    kind = "missing" if not stretch.n_claims else "loaded" if stretch.n_claims == 1 else "loaded again"
    left = date2num(max(stretch.since, begin) if begin else stretch.since)
    return left, date2num(stretch.until) - left, kind


def draw_coverage(found: Mapping[str, Sequence[CoverageRun]], lake: str, path: Path) -> None:
    """Writes a PNG.

    :raises OSError: the file cannot be written.
    """
    drawn = layout(found)
    n_rows = max(1, len(drawn.rows))
    height_in = min(_MAX_HEIGHT_IN, 1.6 + _ROW_IN * n_rows)
    figure = Figure(figsize=(11, height_in), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(drawn.rows):
        for kind, color in COLORS.items():
            spans = [(left, width) for left, width, each in row.bars if each == kind]
            # Few rows have room between them; many are read as one area.
            axes.broken_barh(
                spans, (number - 0.4, 0.8) if n_rows <= MAX_LABELS else (number - 0.5, 1.0), color=color, lw=0
            )
    axes.set_ylim(n_rows - 0.5, -0.5)
    labels = [(number, row.label) for number, row in enumerate(drawn.rows) if row.label]
    axes.set_yticks([number for number, _ in labels], [label for _, label in labels], fontsize=8, parse_math=False)
    if drawn.begin is not None and drawn.end is not None:
        axes.set_xlim(date2num(drawn.begin), date2num(drawn.end))
    locator = AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    every = drawn.labelled_every
    axes.set_xlabel("time, UTC" if every == 1 else f"time, UTC (one channel of {every} is named; verify lists gaps)")
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(_title(drawn, lake), loc="left", fontsize=12, parse_math=False)
    figure.legend(
        handles=[Patch(color=color, label=kind) for kind, color in COLORS.items()],
        loc="outside lower right",
        ncols=len(COLORS),
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, format="png")


def _title(drawn: CoverageMap, lake: str) -> str:
    n_channels = len(drawn.rows)
    what = f"{n_channels} channel{'s' * (n_channels != 1)}"
    if drawn.n_gaps:
        gaps = f"{drawn.n_gaps} gap{'s' * (drawn.n_gaps != 1)} in {drawn.n_with_gaps} of them, which stand on top"
    else:
        gaps = "no gap" if n_channels else "nothing is loaded"
    return f"Coverage of {lake.rstrip('/').rsplit('/', 1)[-1]}: {what}, {gaps}"
