"""Which words of a text name a person: in any spelling, as whole words, and never ordinary words by themselves."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.lake.privacy.matching import Words, is_ordinary
from airflow_provider_chatexport.lake.privacy.people import Person
from airflow_provider_chatexport.lake.privacy.text_redactor import TextRedactor

UUID = "85f6fa93-1165-437c-01f7-90a02d07cdc9"


def redactor(user_id: str, *names: str, any_word: bool = False) -> TextRedactor:
    return TextRedactor([Person(user_id=user_id, names=names, any_word=any_word)])


@pytest.mark.parametrize(
    "user_id", ["a", "bob", "may", "jean-luc", "o'neil", "42", "20260101"[:7], "u1", "田中", "राम"]
)
def test_a_word_or_a_number_is_no_id_by_itself(user_id: str) -> None:
    assert is_ordinary(user_id)


@pytest.mark.parametrize("user_id", ["ann-17", "ann.miller", "ann_m", "user1", "10027411", "a@b.org", "auth0|5f", UUID])
def test_an_id_with_digits_or_signs_is_one_wherever_it_stands(user_id: str) -> None:
    assert not is_ordinary(user_id)


@pytest.mark.parametrize(
    ("user_id", "text", "redacted"),
    [
        ("a", "a plan for a day: Plan A", "a plan for a day: Plan A"),
        ("a", "@a, @A: see x@a.org and @a.org or @ab", "@[forgotten], @[forgotten]: see x@a.org and @a.org or @ab"),
        ("a", f"in a-{UUID} and a-very-very-long-words-x", f"in [forgotten]-{UUID} and a-very-very-long-words-x"),
        ("42", "42 of 420, @42", "42 of 420, @[forgotten]"),
        ("ann-17", "ann-17, ANN-17 @ann-17's", "[forgotten], [forgotten] @[forgotten]'s"),
        ("ann-17", "ann-170 xann-17 ann-17-b", "ann-170 xann-17 ann-17-b"),
        ("ann-17", "ａｎｎ－１７ ann－17", "[forgotten] [forgotten]"),  # noqa: RUF001
        ("müller_7", "MU\u0308LLER_7 müller_7", "[forgotten] [forgotten]"),
        ("mu\u0308ller_7", "Müller_7", "[forgotten]"),
    ],
)
def test_an_id_is_replaced_where_it_looks_like_an_id(user_id: str, text: str, redacted: str) -> None:
    assert redacted == redactor(user_id).text(text)


def test_a_full_name_is_replaced_and_a_name_of_one_word_is_not() -> None:
    text = "May said: may I? ANN  U\u0308BERALL, Ann\u00a0Überall and Ann Überalls"
    redacted = "May said: may I? [forgotten], [forgotten] and Ann Überalls"
    assert redacted == redactor("u-9000", "Ann Überall", "May").text(text)


def test_names_of_one_word_and_ordinary_ids_go_if_that_is_asked_for() -> None:
    assert "[forgotten] and [forgotten]" == redactor("bob", "May", any_word=True).text("may and Bob")


def test_vowel_signs_are_parts_of_words() -> None:
    """Regression: Python's word characters do not contain them, so a name was found inside a longer word."""
    assert "रामा" == redactor("x-100", "राम", any_word=True).text("रामा")


@pytest.mark.parametrize(
    ("json", "redacted"),
    [
        ('{"grade":"a","month":"A"}', '{"grade":"a","month":"A"}'),
        (
            '{"assignedTo":"a","reviewed_by":["a","b"]}',
            '{"assignedTo":"[forgotten]","reviewed_by":["[forgotten]","b"]}',
        ),
        ('{"option":{"id":"a","name":"A"}}', '{"option":{"id":"a","name":"A"}}'),
        ('{"owner":{"id":"a","name":"A"}}', '{"owner":{"id":"[forgotten]"}}'),
        ('[{"user_id":"a","n":1.10}]', '[{"id":"[forgotten]"}]'),
        ('{"a":{"count":1}}', '{"a":{"count":1}}'),
        ('{"said":"\\"no\\" \\n@a","n":1.10}', '{"said":"\\"no\\" \\n@[forgotten]","n":1.10}'),
    ],
)
def test_in_json_an_ordinary_id_counts_only_under_the_key_of_a_user(json: str, redacted: str) -> None:
    assert redacted == redactor("a").json(json)


def test_in_json_an_id_is_found_after_escapes_and_in_shadowed_values() -> None:
    """Python and DuckDB read the last of two equal keys, and the file holds both."""
    written = '{"x":"\\"ann-17\\"","y":"\\u0061nn-17","k":"ann-17","k":1,"big":12345678901234567890}'
    redacted = redactor("ann-17").json(written)
    assert "17" not in redacted.replace("12345678901234567890", "")
    assert "nn-" not in redacted
    assert '"big":12345678901234567890' in redacted


def test_an_object_keyed_by_user_ids_loses_the_key() -> None:
    assert '{"b":{}}' == redactor("a").json_by_user_id('{"a":{"role":"x"},"b":{}}')


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [
        ('{"type":"message","data":{"text":"a plan', True),
        ('{"type":"message","data":{"user":{"id":"a"},"text":"cut', False),
        ('{"type":"message","data":{"mentioned_user_ids":["b","a"', False),
        ('{"text":"hi @a', False),
    ],
)
def test_a_rejected_line_is_emptied_only_if_it_names_the_person(line: str, is_kept: bool) -> None:
    assert (line if is_kept else "") == redactor("a").raw_line(line)


SPELLINGS = st.sampled_from(
    ["ann-17", "ANN-17", "ａｎｎ-17", "Ann Überall", "ann u\u0308berall", "bob", "@bob", f"bob-{UUID}", "\\u0061nn-17"]  # noqa: RUF001
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(SPELLINGS, st.text(max_size=3), st.sampled_from(['"', "\\n", " ", "é", "-"])), max_size=6))
def test_the_database_lets_pass_every_text_that_names_a_person(parts: list[str]) -> None:
    """DuckDB chooses the texts that Python redacts. A text that it holds back would keep the person."""
    text = "".join(parts).replace("\0", "")
    words = Words(["ann-17", "bob"], ["Ann Überall"])
    plain, json = duckdb.execute(f"SELECT {words.may_be_in('$1')}, {words.may_be_in_json('$1')}", [text]).fetchall()[0]
    found = words.regex.search(text) is not None
    assert found <= plain
    assert found <= json


def test_ordinary_ids_in_json_are_let_pass_by_the_database() -> None:
    words = Words(["bob"], [])
    (found,) = duckdb.execute(f"SELECT {words.may_be_in_json('$1')}", ['{"by":"Bob"}']).fetchall()[0]
    assert found
