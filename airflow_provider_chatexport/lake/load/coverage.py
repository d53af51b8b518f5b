"""What a load covers, per channel. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.lake.commits.coverage import CoverageEntry, coverage_entry
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.staging.stage import StagedFile

Bounds = tuple[datetime | None, datetime | None]
MessageSpans = Mapping[str, tuple[datetime, datetime]]


def coverage_of_load(
    staged: Iterable[tuple[InputFile, StagedFile]], message_spans: Mapping[int, MessageSpans], load_id: str
) -> tuple[CoverageEntry, ...]:
    """Return the coverage of a load: each export of channels covers the channels that it names or has messages of.

    :param message_spans: by number of the file and channel, the times of the first and last message.
    """
    entries = (
        coverage_entry(cid=cid, since=since, until=until, exported_at=file.exported_at, load_id=load_id)
        for file, result in staged
        if result.kind is ExportKind.CHANNELS
        for cid, (since, until) in _covered(file, result, message_spans.get(result.number, {}))
    )
    return tuple(entry for entry in entries if entry is not None)


def _covered(file: InputFile, result: StagedFile, spans: MessageSpans) -> Iterator[tuple[str, Bounds]]:
    """Yield each channel that a file covers, with the bounds; None is an open bound."""
    cids = file.cids or sorted(result.cids | spans.keys())
    if file.window is not None:
        yield from ((cid, (file.window.since, file.window.until)) for cid in cids)
    elif file.cids is not None:
        yield from ((cid, (None, None)) for cid in cids)
    else:
        for cid in cids:
            if cid in spans:
                first, last = spans[cid]
                yield cid, (first, last + timedelta(microseconds=1))
