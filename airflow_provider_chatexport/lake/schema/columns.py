"""Columns by how they are read from an object of the API: each function returns a column with its SQL.

In the SQL, ``d`` is the object as a STRUCT of the fields that the registry reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from airflow_provider_chatexport.core.times import EARLIEST, LATEST
from airflow_provider_chatexport.lake.schema.types import Column, Kind, PersonalData

_EARLIEST_S: Final = int(EARLIEST.timestamp())
_LATEST_S: Final = int(LATEST.timestamp())


def first_of(alternatives: Iterable[tuple[str, str]]) -> str:
    """Return an expression: the first value that is not null."""
    values = ", ".join(value for _, value in alternatives)
    return f"coalesce({values})" if values else "NULL"


def text(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of text."""
    # Go writes an id that is not set as an empty text, which would be equal to any other.
    value = f"nullif(d.{name}, '')" if name in ("id", "message_id") else None
    return Column(name=name, kind=Kind.TEXT, doc=doc, field=name, sql=value, personal=personal)


def reference(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of the id of something else."""
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=id_in(name),
        reads=(name,),
        fails_on=((name, loses_id(name)),),
        personal=personal,
    )


def time(name: str, doc: str) -> Column:
    """Return a column of times."""
    return Column(name=name, kind=Kind.TIME, doc=doc, field=name)


def boolean(name: str, doc: str) -> Column:
    """Return a column of flags."""
    return Column(name=name, kind=Kind.BOOL, doc=doc, field=name)


def integer(name: str, doc: str, *, personal: PersonalData | None = None) -> Column:
    """Return a column of whole numbers."""
    return Column(name=name, kind=Kind.INT, doc=doc, field=name, personal=personal)


def json_text(name: str, doc: str, personal: PersonalData) -> Column:
    """Return a column of JSON values, each kept as it is."""
    return Column(name=name, kind=Kind.JSON, doc=doc, field=name, personal=personal)


def text_list(name: str, doc: str, personal: PersonalData, *, or_ids_in: str | None = None) -> Column:
    """Return a column of lists of text.

    :param or_ids_in: a field with a list of objects, which has a column of its own. The text is their ids if the list
        of text is absent or empty.
    """
    items = {name: f"json_extract_string(d.{name}, '$[*]')"}
    if or_ids_in is None:
        return _list(name, doc, items, personal)
    column = _list(name, doc, items | {or_ids_in: _IDS_IN.format(or_ids_in)}, personal)
    return replace(column, fails_on=column.fails_on[:1])


# An item is an object with an id, or the id itself. A list of objects has nothing else, as a rule: its ids are then
# found in one step, which is several times faster.
_IDS_IN: Final = """CASE
    WHEN starts_with(d.{0}::VARCHAR, '["') OR len(json_extract(d.{0}, '$[*].id')) < json_array_length(d.{0}) THEN
        list_transform(json_extract(d.{0}, '$[*]'), lambda item: CASE
            WHEN json_type(item) = 'OBJECT' THEN json_extract_string(item, '$.id')
            WHEN left(item::VARCHAR, 1) <= '9' THEN json_extract_string(item, '$') END)
    ELSE json_extract_string(d.{0}, '$[*].id')
END"""


def ids_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """Return a column of the ids of the users in a list.

    :param field: holds the list, of objects or of their ids.
    :param or_field: holds the list of ids if that in ``field`` is absent or empty.
    """
    fields = (field,) if or_field is None else (field, or_field)
    return _list(name, doc, {each: _IDS_IN.format(each) for each in fields}, PersonalData.USER_IDS)


def _list(name: str, doc: str, items: dict[str, str], personal: PersonalData) -> Column:
    """Return a column of the texts in the first of some lists that has any.

    :param items: the items, by the field that holds the list. An item that is not text is null.
    """
    texts = {field: f"list_filter({of}, lambda item: item <> '')" for field, of in items.items()}
    # Most lists are empty, and an empty one is recognised by its length.
    has_some = {field: f"(strlen(d.{field}::VARCHAR) > 2 AND d.{field}::VARCHAR <> 'null')" for field in items}
    values = [(field, f"CASE WHEN {has_some[field]} THEN {texts[field]} END") for field in items]
    empty = [(field, f"CASE WHEN NOT {has_some[field]} THEN []::VARCHAR[] END") for field in items]
    alternatives = (*values, *empty)
    loses = {field: f"len({texts[field]}) < json_array_length(d.{field})" for field in items}
    first, *others = items
    for field in others:
        loses[field] += f" OR ({has_some[first]} AND NOT list_has_all({texts[first]}, {texts[field]}))"
    # AND computes both of its sides for every row, and CASE only what it needs.
    loses_some = {field: f"CASE WHEN {has_some[field]} THEN {condition} END" for field, condition in loses.items()}
    return Column(
        name=name,
        kind=Kind.TEXTS,
        doc=doc,
        sql=first_of(alternatives),
        alternatives=alternatives,
        reads=tuple(items),
        fails_on=tuple((field, f"({not_a_list(field)}) OR ({loses})") for field, loses in loses_some.items()),
        personal=personal,
    )


def not_a_list(field: str) -> str:
    """Return a condition on ``d``: a field holds something else than a list. Go writes an empty list as null."""
    return f"d.{field}::VARCHAR NOT LIKE '[%' AND {is_something(field)}"


def is_something(field: str) -> str:
    """Return a condition on ``d``: a field is there, and is not empty in any of Go's ways."""
    return f"d.{field}::VARCHAR NOT IN ('null', '{{}}', '[]', '\"\"')"


def id_of(name: str, field: str, doc: str, *, or_field: str | None = None) -> Column:
    """Return a column of the id of an embedded user.

    :param field: holds the object, or its id in the object's place.
    :param or_field: holds the id if ``field`` does not. Another id than that of ``field`` goes to ``custom``.
    """
    own_id = id_in(field)
    alternatives = [(field, own_id)]
    fails_on = [(field, loses_id(field))]
    if or_field is not None:
        differs = f"CASE WHEN d.{or_field} IS NOT NULL THEN ({own_id}) <> ({id_in(or_field)}) END"
        fails_on.append((or_field, f"({differs}) OR ({loses_id(or_field)})"))
        alternatives.append((or_field, id_in(or_field)))
    return Column(
        name=name,
        kind=Kind.TEXT,
        doc=doc,
        sql=first_of(alternatives),
        alternatives=tuple(alternatives),
        reads=(field,) if or_field is None else (field, or_field),
        fails_on=tuple(fails_on),
        personal=PersonalData.USER_ID,
    )


def channel_of(doc: str, *, own_type_and_id: bool = False) -> Column:
    """Return the column ``cid``: the channel that an object names, in any of the ways in which exports do.

    A channel in ``channel_cid``, ``channel_type`` or ``channel_id`` that is not that of ``cid`` goes to ``custom``.

    :param own_type_and_id: the object is a channel, and may have nothing but ``type`` and ``id``.
    """
    pairs = [("channel_type", "channel_id"), *([("type", "id")] if own_type_and_id else [])]
    joined = [f"nullif(d.{first}, '') || ':' || nullif(d.{second}, '')" for first, second in pairs]
    # The usual object names its channel once, so that there is nothing to compare.
    names_it_once = "d.cid IS NULL AND d.channel_cid IS NULL AND d.channel_type <> '' AND d.channel_id <> ''"
    parts = {
        "channel_cid": "_cid",
        "channel_type": "split_part(_cid, ':', 1)",
        "channel_id": "substr(_cid, strpos(_cid, ':') + 1)",
    }

    def differs(key: str, part: str) -> str:
        return f"CASE WHEN {names_it_once} THEN false ELSE d.{key} <> '' AND d.{key} <> {part} END"

    return Column(
        name="cid",
        kind=Kind.TEXT,
        doc=doc,
        field="cid",
        sql=f"coalesce(nullif(d.cid, ''), nullif(d.channel_cid, ''), {', '.join(joined)})",
        reads_text=tuple(parts),
        fails_on=tuple(
            (key, f"CASE WHEN d.{key} IS NOT NULL THEN {differs(key, part)} END") for key, part in parts.items()
        ),
        once=True,
        personal=PersonalData.NOTHING,
    )


# What an id is: a text that is not empty, or a number. Go writes an id that is not set as an empty text, which would be
# equal to any other. Nearly all values are texts, or objects that start with one: those are recognised without parsing.


def id_in(field: str) -> str:
    """Return an expression: the id in a field, which holds it or an object that has it; null if it has none."""
    value = f"d.{field}::VARCHAR"
    of_object = f"nullif(json_extract_string(d.{field}, '$.id'), '')"
    can_be_id = _can_be_id(f"json_extract(d.{field}, '$.id')")
    return f"""CASE
        WHEN starts_with({value}, '{{"id":"') THEN {of_object}
        WHEN starts_with({value}, '{{') THEN CASE WHEN {can_be_id} THEN {of_object} END
        WHEN {_can_be_id(f"d.{field}")} THEN nullif(json_extract_string(d.{field}, '$'), '')
    END"""


def _can_be_id(value: str) -> str:
    # Of the values of JSON, text and numbers come first in ASCII.
    return f"left({value}::VARCHAR, 1) <= '9'"


def loses_id(field: str) -> str:
    """Return a condition on ``d``: a field holds something, and ``id_in`` does not read it."""
    value = f"d.{field}::VARCHAR"
    return f"""CASE
        WHEN starts_with({value}, '{{"id":"') THEN starts_with({value}, '{{"id":""') AND ({id_in(field)}) IS NULL
        WHEN NOT starts_with({value}, '"') THEN {is_something(field)} AND ({id_in(field)}) IS NULL
    END"""


def by_reaction_type(name: str, doc: str, of_group: str) -> Column:
    """Return a column of numbers by type of reaction, from its own field or else from ``reaction_groups``.

    :param of_group: the key of the number in a group.
    """
    # One parse for all groups. What is no object of groups, or has one of them twice, is null.
    groups = f"""json_transform(d.reaction_groups, '"MAP(VARCHAR, STRUCT({of_group} VARCHAR))"')"""
    number = f"each.value.{of_group}"
    members = f"""list_transform(
        map_entries({groups}),
        lambda each: CASE
            WHEN regexp_full_match({number}, '-?\\d+') THEN to_json(each.key)::VARCHAR || ':' || {number} END
    )"""
    # Nearly always the field itself has them, or the message has no reaction.
    in_groups = f"""CASE WHEN {is_something("reaction_groups")} AND d.reaction_groups::VARCHAR LIKE '{{%'
        THEN ('{{' || nullif(array_to_string({members}, ','), '') || '}}')::JSON END"""
    return Column(
        name=name,
        kind=Kind.JSON,
        doc=f"{doc} From `reaction_groups` if the export has it only there.",
        field=name,
        sql=f"CASE WHEN {is_something(name)} THEN d.{name} ELSE coalesce({in_groups}, d.{name}) END",
        reads=("reaction_groups",),
        personal=PersonalData.NOTHING,
    )


def link_end(fields: Iterable[str]) -> str:
    """Return an expression: when the first of some links ends, by the signature in its query; null if none says.

    ``Expires`` counts unix seconds. ``X-Amz-Date`` is the start, and ``X-Amz-Expires`` counts seconds from there.
    """
    ends = []
    for field in fields:
        link = f"d.{field}"
        seconds = rf"TRY_CAST(regexp_extract({link}, '[?&]Expires=(\d{{1,11}})(?:[&#]|$)', 1) AS BIGINT)"
        start = rf"regexp_extract({link}, '[?&]X-Amz-Date=(\d{{8}}T\d{{6}})Z', 1)"
        valid_s = rf"TRY_CAST(regexp_extract({link}, '[?&]X-Amz-Expires=(\d{{1,9}})(?:[&#]|$)', 1) AS BIGINT)"
        start_s = f"epoch(try_strptime({start}, '%Y%m%dT%H%M%S'))::BIGINT"
        # Most attachments are links without a signature.
        ends.append(f"CASE WHEN contains({link}, 'Expires=') THEN coalesce({seconds}, {start_s} + {valid_s}) END")
    end_s = f"least({', '.join(ends)})"
    return f"CASE WHEN {end_s} >= {_EARLIEST_S} AND {end_s} < {_LATEST_S} THEN make_timestamptz({end_s} * 1000000) END"


def computed(
    name: str, kind: Kind, doc: str, *, default: str | None = None, personal: PersonalData | None = None
) -> Column:
    """Return a column that is not read from the object."""
    return Column(name=name, kind=kind, doc=doc, default=default, personal=personal)
