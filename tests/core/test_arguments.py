"""Arguments as people, shells and templates give them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from airflow_provider_chatexport.core.arguments import (
    check_window_end,
    parse_duration,
    parse_names,
    parse_rendered,
    require_text,
)
from airflow_provider_chatexport.errors import CallError, WindowError


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (["a:b", "c:d"], ["a:b", "c:d"]),
        ("a:b, c:d ,", ["a:b", "c:d"]),
        ("['a:b', 'c:d']", ["a:b", "c:d"]),
        ('["a:b"]', ["a:b"]),
        (("a:b",), ["a:b"]),
        ("('a:b', 'c:d')", ["a:b", "c:d"]),
        (None, []),
        ("None", []),
    ],
)
def test_names_may_be_a_list_or_text(value: object, names: list[str]) -> None:
    """A Python list, a comma-separated conf, and a list that a template rendered are the same list."""
    assert names == parse_names(value, "channels", "messaging:general")


NATIVE = "set render_template_as_native_obj=True on the DAG"


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        (rf"^user_ids is text that cannot be read as a list of names; if .*{NATIVE}", "[ann"),
        (rf"^user_ids is text .*{NATIVE}", "<airflow.models.xcom.LazyXComSelectSequence object at 0x7f>"),
        (rf"^user_ids is text .*{NATIVE}", "LazyXComSequence(3 items)"),
        (r"^user_ids contains a value of type int \(with render_template_as_native_obj, .*, such as ann-17$", [7]),
        (r"^user_ids contains a value of type int \(with", 7),
        (r"^user_ids contains a value of type list; write names as text, such as ann-17$", [["ann"]]),
        (r"^user_ids contains a value of type dict; write names", {"ann": 1}),
        (r"^user_ids contains a value of type dict; write names", "{'ann': 1}"),
    ],
)
def test_other_values_are_not_names(sentence: str, value: object) -> None:
    """The error names the argument and the cause, before a request with nonsense in it."""
    with pytest.raises(CallError, match=sentence):
        parse_names(value, "user_ids", "ann-17")


def test_a_duration_is_never_a_template() -> None:
    """Durations are not template fields, and the text of a template does not say so."""
    with pytest.raises(CallError, match=r"^lookback is .*, and templates are not rendered there; give a timedelta"):
        parse_duration("{{ params.days }}", "lookback")


def test_a_window_s_end_that_became_a_number_names_the_cause() -> None:
    """Native rendering makes a number of the text of {{ ds_nodash }}."""
    with pytest.raises(WindowError, match=r"since is of type int; .* \(with render_template_as_native_obj, "):
        check_window_end(20260101, "since")


def test_a_duration_is_a_timedelta_or_seconds() -> None:
    """An infinite number, a boolean or text is an error that names the argument."""
    expected = [timedelta(hours=1), timedelta(hours=1), timedelta(seconds=0.5), None]
    assert expected == [parse_duration(value, "lookback") for value in (timedelta(hours=1), 3600, 0.5, None)]
    for value in ("1h", True, float("inf"), float("nan"), 10**20):
        with pytest.raises(CallError, match=r"^lookback is .*; give a timedelta"):
            parse_duration(value, "lookback")


def test_rendered_values_are_python_or_json() -> None:
    """Templates render either, depending on the filters in them."""
    assert [{"a": None}, {"a": None}] == [parse_rendered(text) for text in ("{'a': None}", '{"a": null}')]
    with pytest.raises(ValueError, match="neither Python nor JSON"):
        parse_rendered("a:b")


def test_required_text_is_text() -> None:
    """Shells and templates render a missing value as "" or "None"."""
    assert "s3://lake" == require_text(" s3://lake ", "lake", "give a folder")
    for value in (None, "", " ", "None"):
        with pytest.raises(CallError, match=r"^lake is empty; give a folder"):
            require_text(value, "lake", "give a folder")
    with pytest.raises(CallError, match=r"^lake is not text but of type int; give a folder"):
        require_text(5, "lake", "give a folder")


def test_an_end_of_a_window_is_text_or_a_datetime() -> None:
    """A number could be a year, a day or unix seconds."""
    for value in (None, "2025-01-01", datetime(2025, 1, 1)):  # noqa: DTZ001 - refused later, with its own sentence
        assert value == check_window_end(value, "since")
    with pytest.raises(WindowError, match="the window's since is of type int; give a datetime"):
        check_window_end(20250101, "since")
