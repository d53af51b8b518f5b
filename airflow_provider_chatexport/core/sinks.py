"""The formats in which a lake can be read as tables."""

from __future__ import annotations

import enum

from airflow_provider_chatexport.errors import CallError


class Sink(enum.Enum):
    """A format of tables. The lake's own files are Parquet; the others are published from the same files."""

    PARQUET = "parquet"
    DELTA = "delta"
    ICEBERG = "iceberg"


def parse_published(value: str | Sink) -> Sink:
    """Return a format that a lake is published to.

    :raises CallError: it is not one.
    """
    known = [each.value for each in Sink if each is not Sink.PARQUET]
    text = value.value if isinstance(value, Sink) else value
    if text not in known:
        raise CallError(
            f"a lake is published as {' or '.join(known)}, and the format is {str(text)[:40]!r}; give one of those"
        )
    return Sink(text)
