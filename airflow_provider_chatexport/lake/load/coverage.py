"""What a load covers, per channel. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.lake.commits.channels import ChannelSet
from airflow_provider_chatexport.lake.commits.coverage import BEGINNING, CoverageEntry, coverage_entry
from airflow_provider_chatexport.lake.load.horizon import Horizons
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.staging.stage import StagedFile

Bounds = tuple[datetime | None, datetime | None]
MessageSpans = Mapping[str, tuple[datetime, datetime]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a load covers. ``n_clipped``: of how many channels of exports the horizon cuts off a part, or all."""

    entries: tuple[CoverageEntry, ...] = ()
    n_clipped: int = 0


def coverage_of_load(
    staged: Iterable[tuple[InputFile, StagedFile]],
    message_spans: Mapping[int, MessageSpans],
    load_id: str,
    horizons: Horizons,
) -> Claims:
    """Return the coverage of a load: each export of channels covers the channels that it names or has messages of.

    Channels with one span and one time of export are one entry.

    :param message_spans: by number of the file and channel, the times of the first and last message.
    :param horizons: from when on an export knows all, if the service has retention policies.
    """
    channels: dict[tuple[datetime | None, datetime | None, datetime], list[str]] = defaultdict(list)
    n_clipped = 0
    for file, result in staged:
        if result.kind is ExportKind.CHANNELS:
            moment = file.finished_at or file.exported_at
            for cid, (since, until) in _covered(file, result, message_spans.get(result.number, {})):
                end = min(until, file.exported_at) if until else file.exported_at
                horizon = horizons.of(cid, file.retention, exported_at=file.exported_at, moment=moment)
                if horizon is not None and (since or BEGINNING) < min(horizon, end):
                    n_clipped += 1
                    since = horizon  # noqa: PLW2901
                channels[since, until, file.exported_at].append(cid)
    entries = (
        coverage_entry(channels=ChannelSet.of(cids), since=since, until=until, exported_at=exported_at, load_id=load_id)
        for (since, until, exported_at), cids in channels.items()
    )
    return Claims(entries=tuple(entry for entry in entries if entry is not None), n_clipped=n_clipped)


def without_channels(
    staged: Iterable[tuple[InputFile, StagedFile]], message_spans: Mapping[int, MessageSpans]
) -> list[InputFile]:
    """Return the files that state a window and no channel, neither in a line nor next to it: they cover nothing."""
    return [
        file
        for file, result in staged
        if file.window is not None and not _cids(file, result, message_spans.get(result.number, {}))
    ]


def _cids(file: InputFile, result: StagedFile, spans: MessageSpans) -> Sequence[str]:
    found = result.cids | spans.keys()
    if file.task_id is not None:
        return file.cids or sorted(found)
    # A person who states the channels of a file may leave some out; a request names all of them.
    return sorted({*(file.cids or ()), *found})


def _covered(file: InputFile, result: StagedFile, spans: MessageSpans) -> Iterator[tuple[str, Bounds]]:
    """Yield each channel that a file covers, with the bounds; None is an open bound."""
    cids = _cids(file, result, spans)
    if file.window is not None:
        yield from ((cid, (file.window.since, file.window.until)) for cid in cids)
    elif file.cids is not None:
        yield from ((cid, (None, None)) for cid in cids)
    else:
        for cid in cids:
            if cid in spans:
                first, last = spans[cid]
                yield cid, (first, last + timedelta(microseconds=1))
