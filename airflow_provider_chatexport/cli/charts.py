"""A picture of a lake's coverage: one row per channel, with time from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from airflow_provider_chatexport.cli.words import count
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageRun

# Okabe and Ito's colours, which people with colour blindness can tell apart as well.
COLORS: Final = {"loaded": "#56B4E9", "loaded again": "#0072B2", "missing": "#D55E00"}
MAX_LABELS: Final = 60
_ROW_IN: Final = 0.26
_MAX_HEIGHT_IN: Final = 13.0
_LONGEST_LABEL: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One channel.

    :param label: its name; empty if there is no room for it.
    :param bars: start, width and kind of each bar. Start and width are in days, as matplotlib counts them.
    """

    label: str
    bars: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageMap:
    """What to draw, from the top row down. ``start`` and ``end`` of the time axis are None if nothing is covered."""

    rows: tuple[Row, ...]
    start: datetime | None
    end: datetime | None
    labelled_every: int
    n_gaps: int
    n_with_gaps: int


def layout(runs: Mapping[str, Sequence[CoverageRun]]) -> CoverageMap:
    """Return what to draw. Channels with the longest gaps come first: they have a label even among hundreds."""
    moments = [moment for of_channel in runs.values() for run in of_channel for moment in (run.since, run.until)]
    known = [moment for moment in moments if moment != BEGINNING]
    end = max(known, default=None)
    start = min(known, default=None)
    if start is not None and start == end:
        start = start - timedelta(days=1)  # every export covers all time up to one moment, so any span will do
    gaps = {cid: [run for run in of_channel if not run.n_entries] for cid, of_channel in runs.items()}
    missing = {cid: sum((run.until - run.since for run in of_channel), timedelta()) for cid, of_channel in gaps.items()}
    ordered = sorted(runs, key=lambda cid: (-missing[cid], cid))
    every = -(-len(ordered) // MAX_LABELS) if ordered else 1
    rows = []
    for number, cid in enumerate(ordered):
        rows.append(
            Row(label=_short(cid) if number % every == 0 else "", bars=tuple(_bar(run, start) for run in runs[cid]))
        )
    return CoverageMap(
        rows=tuple(rows),
        start=start,
        end=end,
        labelled_every=every,
        n_gaps=sum(map(len, gaps.values())),
        n_with_gaps=sum(map(bool, gaps.values())),
    )


def _short(cid: str) -> str:
    """Return a short label. Ids differ at their ends more often than in the middle, so the middle goes."""
    half = _LONGEST_LABEL // 2
    return cid if len(cid) <= _LONGEST_LABEL else f"{cid[:half]}…{cid[1 - half :]}"


def _bar(run: CoverageRun, start: datetime | None) -> tuple[float, float, str]:
    kind = "missing" if not run.n_entries else "loaded" if run.n_entries == 1 else "loaded again"
    left = date2num(max(run.since, start) if start else run.since)
    return left, date2num(run.until) - left, kind


def draw_coverage(runs: Mapping[str, Sequence[CoverageRun]], lake: str, path: Path) -> None:
    """Draw the coverage of a lake as a PNG file.

    :param runs: by channel, as ``Lake.coverage_runs`` returns them.
    :param lake: the lake's address, for the title.
    :param path: the file to write.
    :raises OSError: the file cannot be written.
    """
    coverage = layout(runs)
    n_rows = max(1, len(coverage.rows))
    height_in = min(_MAX_HEIGHT_IN, 1.6 + _ROW_IN * n_rows)
    figure = Figure(figsize=(11, height_in), dpi=150, layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(coverage.rows):
        for kind, color in COLORS.items():
            spans = [(left, width) for left, width, each in row.bars if each == kind]
            # A few rows have space between them. Many rows are one area.
            axes.broken_barh(
                spans, (number - 0.4, 0.8) if n_rows <= MAX_LABELS else (number - 0.5, 1.0), color=color, lw=0
            )
    axes.set_ylim(n_rows - 0.5, -0.5)
    labels = [(number, row.label) for number, row in enumerate(coverage.rows) if row.label]
    axes.set_yticks([number for number, _ in labels], [label for _, label in labels], fontsize=8, parse_math=False)
    if coverage.start is not None and coverage.end is not None:
        axes.set_xlim(date2num(coverage.start), date2num(coverage.end))
    locator = AutoDateLocator(minticks=4, maxticks=10)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    every = coverage.labelled_every
    axes.set_xlabel(
        "time, UTC" if every == 1 else f"time, UTC (one channel of {every} is named; chatexport verify lists gaps)"
    )
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(_title(coverage, lake), loc="left", fontsize=12, parse_math=False)
    figure.legend(
        handles=[Patch(color=color, label=kind) for kind, color in COLORS.items()],
        loc="outside lower right",
        ncols=len(COLORS),
        frameon=False,
        fontsize=9,
    )
    figure.savefig(path, format="png")


def _title(coverage: CoverageMap, lake: str) -> str:
    n_channels = len(coverage.rows)
    what = count(n_channels, "channel")
    if coverage.n_gaps:
        gaps = f"{count(coverage.n_gaps, 'gap')} in {coverage.n_with_gaps} of them, at the top"
    else:
        gaps = "no gaps" if n_channels else "nothing is loaded"
    return f"Coverage of {lake.rstrip('/').rsplit('/', 1)[-1]}: {what}, {gaps}"
