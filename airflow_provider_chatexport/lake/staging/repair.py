"""Objects that the JSON reader refused: in a form that it takes, or a reject."""

from __future__ import annotations

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.normalize.export_file import Line
from airflow_provider_chatexport.lake.normalize.output import NormalizedObject, encode_line
from airflow_provider_chatexport.lake.normalize.rejects import Reject, reject
from airflow_provider_chatexport.lake.normalize.shapes import missing_from, own_channel, with_cid
from airflow_provider_chatexport.lake.raw_json import NotAnObjectError, read_object


def repair(entity: Entity, found: NormalizedObject, cid: str | None) -> bytes | Reject:
    """An object that the JSON reader refused or left incomplete: in a form that it takes, or the reason for a reject.

    :param cid: the channel that the object belongs to by its place in the file.
    """
    try:
        payload, fields = read_object(found.data)
    except NotAnObjectError as error:
        return unreadable(found, str(error))
    in_channel = own_channel(fields) or (cid if entity is not Entity.REACTION else None)
    if missing := missing_from(entity, fields, in_channel):
        return unreadable(found, f"{entity.value} without {missing}")
    return encode_line(found.n, found.line, found.offset, with_cid(payload, fields, in_channel))


def unreadable(found: NormalizedObject, reason: str) -> Reject:
    """A reject of an object that was in_place on, with its line as it stood where that is known."""
    raw = found.data if found.start is None else found.start[:-1] + found.data + b"}"
    return reject(Line(found.line, found.offset, raw, len(raw)), reason)
