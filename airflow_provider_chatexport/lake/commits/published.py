"""The last publication in each format and catalog, which the lake remembers in ``_published/<format>.json``.

A published table names data files, and its readers go on reading them until the next publication, whatever loads and
rewrites do meanwhile. So files that died since the last publication are not deleted (``needed_since``), except where a
removal of a person purged them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from airflow_provider_chatexport.core.times import format_rfc3339, parse_written
from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.store import LakeStore

FOLDER: Final = "_published"
_VERSION: Final = 1
# A record says when its commit began. It may have come to the lake later, by a slow upload.
_SLACK: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The last publication in one format and catalog.

    :param format: such as ``delta``.
    :param catalog: the name of a catalog in the configuration of the format's library; None for none.
    :param as_of: the commit of the last record that it shows; aware, UTC. None of an empty lake.
    :param version: how many records it shows.
    :param places: by table, how readers name the published one. Without secrets.
    """

    format: str
    catalog: str | None
    as_of: datetime | None
    version: int
    places: dict[str, str]

    @property
    def path(self) -> str:
        """Where it lies, relative to the lake."""
        suffix = f"-{hashlib.sha256(self.catalog.encode()).hexdigest()[:8]}" if self.catalog else ""
        return f"{FOLDER}/{self.format}{suffix}.json"

    def to_json(self) -> dict[str, Any]:
        """Return the publication as JSON types."""
        return {
            "v": _VERSION,
            "format": self.format,
            "catalog": self.catalog,
            "as_of": format_rfc3339(self.as_of) if self.as_of else None,
            "version": self.version,
            "places": self.places,
        }


def remember(store: LakeStore, publication: Publication) -> None:
    """Write a publication over the one before.

    :raises LakeError: the lake cannot be written.
    """
    store.replace(publication.path, orjson.dumps(publication.to_json(), option=orjson.OPT_INDENT_2))


def read(store: LakeStore) -> list[Publication]:
    """Return the last publication in each format and catalog; none of a lake that was never published.

    :raises LakeError: the lake cannot be read, or a publication is damaged.
    """
    return [_parse(store, path) for path in store.list_folder(FOLDER, ".json")]


def needed_since(store: LakeStore) -> datetime | None:
    """Return the moment since which published tables need the files that die; None if there are no such tables.

    :raises LakeError: the lake cannot be read, or a publication is damaged.
    """
    moments = [each.as_of for each in read(store) if each.as_of is not None]
    return min(moments) - _SLACK if moments else None


def _parse(store: LakeStore, path: str) -> Publication:
    try:
        value = orjson.loads(store.read(path))
        if value["v"] != _VERSION:
            raise LakeError(
                f"{store.url(path)} is of version {value['v']}, and this installation reads version {_VERSION}; "
                "upgrade airflow-provider-chatexport",
                retryable=False,
            )
        return Publication(
            format=value["format"],
            catalog=value["catalog"],
            as_of=parse_written(value["as_of"]) if value["as_of"] else None,
            version=value["version"],
            places=value["places"],
        )
    except (ValueError, KeyError, TypeError):
        raise LakeError(
            f"{store.url(path)} does not say what was published; delete it, then run chatexport publish again",
            retryable=False,
        ) from None
