"""Finding the people of the suppression list in a load, or in files of a lake.

The list has hashes only. So every id, every string in JSON and every word is hashed and looked up. A name is found by
the hash of its first word, and then by that of all of its words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import duckdb

from airflow_provider_chatexport.lake.privacy import matching, message_ids
from airflow_provider_chatexport.lake.privacy.columns import columns
from airflow_provider_chatexport.lake.privacy.people import Person, user_ids, with_known_names
from airflow_provider_chatexport.lake.privacy.suppression_list import Entry, ListedName, SuppressionList
from airflow_provider_chatexport.lake.schema import sql
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.schema.types import Kind, PersonalData

_IN_JSON: Final = (PersonalData.JSON, PersonalData.JSON_BY_USER_ID, PersonalData.WHOLE_OBJECT, PersonalData.RAW_LINE)
_STRING: Final = r'"((?:[^"\\]|\\.)*)"'
_BATCH: Final = 10_000


def people_of(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList) -> list[Person]:
    """Return the people on the list whom the relations name, with the names that the relations have for them.

    :raises duckdb.Error: a relation cannot be read.
    """
    if not listed.entries:
        return []
    found = listed.among(user_ids(con, relations) | ids_in_json(con, relations, listed))
    people = [person_of(user_id, entry) for user_id, entry in found.items()]
    return with_known_names(con, relations, [*people, *named_in_texts(con, relations, listed)])


def person_of(user_id: str, entry: Entry) -> Person:
    """Return a person whose id was found."""
    return Person(user_id=user_id, keep_messages=entry.keep_messages, any_word=entry.any_word)


def ids_in_json(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList) -> set[str]:
    """Return the user ids inside JSON values, keys included, that are on the list.

    :raises duckdb.Error: a relation cannot be read.
    """
    found: set[str] = set()
    for strings in _strings_in_json(relations, *_IN_JSON) if listed.entries else ():
        query = f"SELECT DISTINCT text FROM ({strings}) WHERE {listed.is_listed('text')}"
        found.update(text for (text,) in con.execute(query).fetchall())
    return found


def named_in_texts(
    con: duckdb.DuckDBPyConnection, relations: Mapping[str, str], listed: SuppressionList
) -> list[Person]:
    """Return the people on the list whom texts name: ids and names, as the texts write them.

    :raises duckdb.Error: a relation cannot be read.
    """
    by_word = {entry.in_texts: entry for entry in listed.entries.values() if entry.in_texts}
    names: dict[str, list[ListedName]] = defaultdict(list)
    entry_of: dict[str, Entry] = {}
    for entry in listed.entries.values():
        for name in entry.names if entry.any_word else (each for each in entry.names if each.n_words > 1):
            names[name.first_word].append(name)
            entry_of[name.name] = entry
    if not by_word:
        return []
    people, first_words = [], set[str]()
    for each in _words_in_texts(con, relations):
        digest = listed.hash_of_word(each)
        if digest in by_word:
            entry = by_word[digest]
            person = Person(user_id=None, spellings=(each,), keep_messages=entry.keep_messages, any_word=entry.any_word)
            people.append(person)
        if digest in names:
            first_words.add(each)
    for entry, written in _names_in_texts(con, relations, listed, first_words, names, entry_of):
        people.append(
            Person(user_id=None, names=(written,), keep_messages=entry.keep_messages, any_word=entry.any_word)
        )
    return people


def _strings_in_json(relations: Mapping[str, str], *kinds: PersonalData) -> Iterator[str]:
    """Yield a query for the strings in each column of JSON, as they read without escapes."""
    for table in TABLES:
        for column in columns(table, *kinds) if table.name in relations else ():
            written = f"regexp_extract_all({sql.name(column.name)}::VARCHAR, {sql.quoted(_STRING)}, 1)"
            quoted = "'\"' || written || '\"'"
            yield f"""
                SELECT CASE WHEN contains(written, '\\') AND json_valid({quoted})
                    THEN json_extract_string({quoted}, '$') ELSE written END AS text
                FROM (SELECT DISTINCT unnest({written}) AS written FROM {relations[table.name]})
            """


def _texts(relations: Mapping[str, str]) -> Iterator[str]:
    """Yield a query for the texts of each column in which people are named."""
    yield from _strings_in_json(relations, *_IN_JSON)
    for table in TABLES:
        for column in columns(table, PersonalData.CONTENT) if table.name in relations else ():
            if column.kind is Kind.TEXT:
                yield f"SELECT {sql.name(column.name)} AS text FROM {relations[table.name]}"
    for table in TABLES:
        if table.name in relations and any(column.kind is Kind.JSON for column in columns(table, PersonalData.CONTENT)):
            yield from _strings_in_json({table.name: relations[table.name]}, PersonalData.CONTENT)


def _words_in_texts(con: duckdb.DuckDBPyConnection, relations: Mapping[str, str]) -> Iterator[str]:
    """Yield every word in texts, and every run of characters with signs in it, such as ``ann@example.org``."""
    seen: set[str] = set()
    for query in _texts(relations):
        # Few chunks are distinct, and DuckDB splits at one character much faster than at a pattern.
        result = con.execute(f"SELECT DISTINCT unnest(string_split(text, ' ')) FROM ({query}) WHERE text <> ''")
        while chunks := result.fetchmany(_BATCH):
            for (chunk,) in chunks:
                for each in _words_in(chunk):
                    if each not in seen:
                        seen.add(each)
                        yield each


def _words_in(chunk: str) -> Iterator[str]:
    for run in chunk.split():
        yield run.strip(".,:;!?()[]{}<>\"'")
        for each in matching.word().findall(run):
            yield each
            if author := message_ids.author_in(each):
                yield author


def _names_in_texts(
    con: duckdb.DuckDBPyConnection,
    relations: Mapping[str, str],
    listed: SuppressionList,
    first_words: Iterable[str],
    names: Mapping[str, list[ListedName]],
    entry_of: Mapping[str, Entry],
) -> Iterator[tuple[Entry, str]]:
    """Yield the names on the list that texts contain, as the texts write them."""
    either = "|".join(map(matching.pattern, sorted(first_words, key=len, reverse=True)))
    for query in _texts(relations) if either else ():
        condition = f"regexp_matches(text, {sql.quoted(either)}, 'i')"
        result = con.execute(f"SELECT DISTINCT text FROM ({query}) WHERE {condition}")
        while texts := result.fetchmany(_BATCH):
            for (text,) in texts:
                words = [*matching.word().finditer(text)]
                for at, first in enumerate(words):
                    for name in names.get(listed.hash_of_word(first.group()), ()):
                        of_name = words[at : at + name.n_words]
                        if listed.hash_of_word(" ".join(each.group() for each in of_name)) == name.name:
                            yield entry_of[name.name], text[first.start() : of_name[-1].end()]
