"""Replacements of single values: each has the form of what it replaces, and nothing else of it."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime, timedelta

import pytest
from getstream import models
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_chatexport.core.times import parse_rfc3339
from airflow_provider_chatexport.lake.sample.names import Role, role_of
from airflow_provider_chatexport.lake.sample.values import Replacements

TOKEN = "[a-z][a-z2-7]{12,}"


@pytest.fixture
def replacements() -> Replacements:
    """Return replacements that are the same in every run, so that no test fails once in a thousand."""
    return Replacements(bytes(range(32)))


def replaced(replacements: Replacements, raw: str, key: str = "") -> str:
    """Return the replacement of a string under a key; both as they stand between the quotes."""
    return replacements.string(raw.encode(), role_of(key), key).decode()


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("2025-01-23T13:05:35.49125Z", r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{4}[1-9]Z"),
        ("2025-01-23T13:05:35.365621247Z", r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{8}[1-9]Z"),
        ("2025-01-23T13:05:35.120000Z", r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d[1-9]0000Z"),
        ("2025-01-23 13:05:35.000+05:30", r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.000\+01:00"),
        ("2025-01-23t13:05:35z", r"20\d\d-\d\d-\d\dt\d\d:\d\d:\d\dz"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.5Z", r"9999-12-31T23:59:59\.[1-9]Z"),
    ],
)
def test_a_time_keeps_its_form(replacements: Replacements, raw: str, form: str) -> None:
    """How many digits a fraction has, and how an offset is written, is what a reader of the sample has to know."""
    sample = replaced(replacements, raw, "created_at")
    assert re.fullmatch(form, sample)
    assert raw.startswith(("0001", "9999")) or sample[:19] != raw[:19]


@given(st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)), st.timedeltas(timedelta(0), timedelta(days=9000)))  # noqa: DTZ001 - as text they are in UTC
def test_times_keep_their_order_and_distance(start: datetime, later: timedelta) -> None:
    """Which window a message is in, and which of two versions is newer, must not change."""
    replacements = Replacements()
    first, second = (f"{moment.replace(microsecond=0).isoformat()}Z" for moment in (start, start + later))
    moved = [parse_rfc3339(replaced(replacements, raw)) for raw in (first, second)]
    assert parse_rfc3339(second) - parse_rfc3339(first) == moved[1] - moved[0]
    assert timedelta(days=400) <= parse_rfc3339(first) - moved[0] < timedelta(days=1800)


def test_nanoseconds_move_as_far_as_text_does(replacements: Replacements) -> None:
    """The service has times in two spellings, and in both the same moment must stay the same."""
    moved = parse_rfc3339(replaced(replacements, "2026-01-17T09:08:17Z"))
    for number in ("1768640897000000000", "1768640897123400000"):
        sample = replacements.number(number, Role.TIME)
        assert int(moved.timestamp()) == int(sample) // 10**9
        assert len(number.rstrip("0")) == len(sample.rstrip("0"))
        assert sample == replaced(replacements, number, "created_at")
    assert not replacements.number("1768640897000000000", Role.ANY).startswith("17686408")


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("https://cdn.acme.com", rf"https://{TOKEN}\.example"),
        ("http://acme.com/a/cat.JPG", rf"http://{TOKEN}\.example/{TOKEN}/{TOKEN}\.JPG"),
        ("acme-app://open?x=y", rf"{TOKEN}://{TOKEN}\.example\?{TOKEN}={TOKEN}"),
        ("https://u:p@acme.com:8080/a/?q#f", rf"https://{TOKEN}\.example/{TOKEN}/\?{TOKEN}#{TOKEN}"),
        (r"https:\/\/acme.com\/a", rf"https:\\/\\/{TOKEN}\.example\\/{TOKEN}"),
        (r"https://a.b/c?w=640\u0026h=1", rf"https://{TOKEN}\.example/{TOKEN}\?w=\d{{18}}\\u0026h=\d{{18}}"),
        ("https://[/", rf"https://{TOKEN}\.example"),
    ],
)
def test_a_link_keeps_its_shape(replacements: Replacements, raw: str, form: str) -> None:
    """Its host, its path and what it asks for go; how it is written stays."""
    assert re.fullmatch(form, replaced(replacements, raw, "image_url"))


def test_a_signed_link_ends_when_it_did(replacements: Replacements) -> None:
    """The end of an attachment's link is data: it must move as all times do, and stay readable."""
    at = parse_rfc3339(replaced(replacements, "2025-02-01T00:00:00Z"))
    raw = "https://eu.stream-io-cdn.com/1/a.png?Key-Pair-Id=APK&Policy=eyJ&Signature=abc&Expires=1738368000&oh=1"
    link = replaced(replacements, raw, "image_url")
    assert f"&Expires={int(at.timestamp())}&" in link
    assert ["Key-Pair-Id", "Policy", "Signature", "Expires", "oh"] == re.findall(r"[?&]([\w-]+)=", link)
    aws = replaced(replacements, "https://a.b/c?X-Amz-Date=20250201T000000Z&X-Amz-Expires=1209600", "asset_url")
    assert aws.endswith(f"?X-Amz-Date={at.strftime('%Y%m%dT%H%M%SZ')}&X-Amz-Expires=1209600")
    assert "1738368000" not in replaced(replacements, "https://a.b/c?phone=1738368000", "asset_url")


@pytest.mark.parametrize(
    ("number", "form"),
    [
        ("0", "0"),
        ("1", "1"),
        ("7", "[2-9]"),
        ("-12345", r"-[1-9]\d{4}"),
        ("0.85", r"0\.\d[1-9]"),
        ("3.0", r"\d\.0"),
        ("-1.50", r"-\d\.[1-9]0"),
        ("1.7672256E+18", r"1\.\d{6}[1-9]E\+18"),
        ("9223372036854775807", r"9[0-2]\d{17}"),
        ("9223372036854775808", r"9[2-9]\d{17}"),
        ("18446744073709551616", r"18\d{18}"),
    ],
)
def test_a_number_keeps_its_form(replacements: Replacements, number: str, form: str) -> None:
    """Whether a column can hold a number depends on its form: a fraction, an exponent, more than 64 bits."""
    for _ in range(50):
        sample = replacements.number(number, Role.ANY)
        assert re.fullmatch(form, sample)
        assert (int(number) > 2**63 - 1) == (int(sample) > 2**63 - 1) if len(number) == 19 else True


def test_a_number_that_is_an_id_is_the_same_everywhere(replacements: Replacements) -> None:
    """An app may number its users, as numbers or as text."""
    sample = replacements.number("42", Role.ID)
    assert sample == replacements.number("42", Role.ID) == replaced(replacements, "42", "user_id")
    assert re.fullmatch(r"\d{18}", sample)
    assert sample != replacements.number("43", Role.ID)


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("Ann", "[a-z]+"),
        ("Hi, Ann!  How are you?", r"[a-z]+ [a-z]+  [a-z]+ [a-z]+ [a-z]+"),
        (
            r"\u003cp\u003eHi \u0026amp; bye\u003c/p\u003e\n",
            r"\\u003cp\\u003e[a-z]+ \\u0026[a-z]+ [a-z]+\\u003c/p\\u003e\\n",
        ),
        (r"<\/p> a \"b\" \\ c\td\u2028", r'<\\/p> [a-z]+ \\"[a-z]+\\" \\\\ [a-z]+\\t[a-z]+\\u2028'),
        ("<script>Ann</script>", "<[a-z]+>[a-z]+<[a-z]+>"),
        ("漢字漢字漢字漢字漢", "漢漢漢漢漢漢漢漢"),
        (r"caf\u00e9 \ud83d\ude00", r"[a-z]+\\u00e9 \\ud83d\\ude00"),
        ("see https://acme.com/x", rf"[a-z]+ https://{TOKEN}\.example/{TOKEN}"),
        ("ann@acme.com", "[a-z]+"),
        ("", ""),
    ],
)
def test_a_text_keeps_its_marks(replacements: Replacements, raw: str, form: str) -> None:
    """Escapes, line ends, marks of HTML and letters outside ASCII are what parsers stumble over."""
    sample = replaced(replacements, raw, "text")
    assert re.fullmatch(form, sample)
    json.loads(f'"{sample}"')


def test_a_text_is_different_every_time(replacements: Replacements) -> None:
    """Otherwise the most frequent message would be recognised as "ok"."""
    assert 1 < len({replaced(replacements, "ok", "text") for _ in range(20)})


def test_a_long_text_stays_long(replacements: Replacements) -> None:
    """A picture inside a message has no space at all; limits of size must be met as before."""
    raw = "QUFB" * 25_000
    for key in ("text", "image"):
        assert 25_000 < len(replaced(replacements, raw, key)) < 400_000


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("type", "regular"),
        ("role", "admin"),
        ("channel_role", "channel_member"),
        ("status", "member"),
        ("banned", "true"),
    ],
)
def test_a_value_of_the_service_stays(replacements: Replacements, key: str, raw: str) -> None:
    """Values that every app has identify no app, and say what an object is."""
    assert raw == replaced(replacements, raw, key)


def test_every_key_of_the_api_stays(replacements: Replacements) -> None:
    """A sample without them would not show what the service writes. The names are those of the official SDK."""
    objects = (
        *(models.MessageResponse, models.Attachment, models.Action, models.Images, models.ImageData, models.Field),
        *(models.ReactionResponse, models.ReactionGroupResponse, models.ReactionGroupUserResponse, models.BanResponse),
        *(models.ChannelResponse, models.ChannelConfigWithInfo, models.ChannelMemberResponse, models.ReadStateResponse),
        *(models.FullUserResponse, models.DeviceResponse, models.PrivacySettingsResponse, models.UserMuteResponse),
        *(models.PollResponseData, models.PollVoteResponseData, models.DraftResponse, models.ReminderResponseData),
        *(models.SharedLocationResponseData, models.ModerationV2Response, models.ThreadStateResponse),
        *(
            models.ExportUserResponse,
            models.CallResponse,
            models.CallSessionResponse,
            models.ChannelStateResponseFields,
        ),
    )
    keys = {field.name for each in objects for field in dataclasses.fields(each)}
    assert len(keys) > 250
    assert set() == {key for key in keys if replacements.key(key.encode()) != key.encode()}


@pytest.mark.parametrize("key", ["id", "user_id", "name", "custom", "text", ""])
def test_a_value_of_the_service_does_not_stay_elsewhere(replacements: Replacements, key: str) -> None:
    """There may be a user who is called admin."""
    assert "admin" not in replaced(replacements, "admin", key)
