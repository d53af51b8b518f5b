"""Export file -> one clean file per entity, and rejects.

``normalize`` is a loop of three steps. Reading cuts the file into units (``elements``). ``entities`` decides what is in
a unit, and touches nothing. ``Output`` counts, numbers, writes and rejects:

    an export file, shapes mixed                unit       decision                      goes to
    1  {"type":"channel","data":{"cid":"a:b"}}  Line 1     object, its channel is a:b    channel.ndjson
    2  {"message":{"id":"m1",..}}               Line 2     object, behind a:b            message.ndjson
    3  {"type":"poll","data":{..}}              Line 3     other entity, behind a:b      other-0.ndjson
    4  {"message":{"id":                        Line 4     reject: not JSON              rejects.ndjson
    5  {"channel":..,"messages":[..]}           Part ..    objects, behind this channel  channel.ndjson, message.ndjson
       (longer than the limit of a line)

Whatever the shape, objects come out in one form, ``{"n":..,"line":..,"pos":..,"data":{..}}``, and ``data`` is the bytes
as they came: no number, key or escape changes. A line takes the first of these routes that it fits:

1. In place (``fast_path``). Blocks of messages and reactions in one envelope (``item`` or ``data``) are decoded at
   once, and DuckDB will read the messages from the export file itself. All other lines take the routes below.
2. Usual (``Context.usual``). The first bytes say that the line is one message or reaction. The object is cut off
   behind them and decoded once, which checks that it is JSON. What it lacks to be a row is left for DuckDB to find.
3. Split (``entities``). The line is split into members and its shape recognised. Each object in it gets its channel and
   is checked for what a row needs.
4. Parts (``elements``). An element of an array, or a line longer than the limit that holds a whole channel or user, is
   streamed in fragments, each item of its lists a part. What stands before the channel waits for it, in a file if
   there is much of it.

Fallbacks. A line that does not fit route 2 takes route 3. A message that cannot stay in place ends route 1, and the
file is normalized once more from its first line, every object written (``normalize``). Staging does the same if DuckDB
refuses an object of a file that was left in place, or finds a message twice. A file whose content says that it is an
export of users is normalized once more with the context of users. Nothing restarts for a broken line: it is a reject.
A broken array or gzip stream ends the load, since the rest cannot be trusted.
"""

from __future__ import annotations

from pathlib import Path

from airflow_provider_chatexport.lake.normalize.elements import units
from airflow_provider_chatexport.lake.normalize.entities import Context, entities
from airflow_provider_chatexport.lake.normalize.export_file import ExportReader
from airflow_provider_chatexport.lake.normalize.output import NormalizedFile, Output


def normalize(reader: ExportReader, folder: Path, context: Context) -> NormalizedFile:
    """Write every object of an export file into the file of its entity.

    :param folder: for the files.
    :param context: of an export of channels, or of one of users; new for each file.
    :raises InputError: the file breaks off, or its array is not well formed.
    """
    with Output(folder) as output:
        for unit in units(reader, folder, context.head, context.max_line_bytes):
            output.lines += unit.is_line
            for decision in entities(unit, context):
                output.write(decision)
    return output.normalized(context)
