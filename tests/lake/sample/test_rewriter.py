"""Samples of export files: nothing of what the file says is left, and everything of how it says it."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from effort import examples
from export_objects import AT, CID, channel, convert, encoded, line, member, message, reaction, read, user, write_lines
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.core.entities import Shape
from airflow_provider_chatexport.core.plan import ExportFlags
from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.sample.names import FLAGS, KEYS, TAGS, VALUES, WORDS, role_of_keys
from airflow_provider_chatexport.lake.sample.rewriter import MAX_DEPTH, MAX_STRING_BYTES, Rewriter, Sample, write_sample
from airflow_provider_chatexport.lake.sample.values import MAX_NUMBERED_KEYS, Replacements
from airflow_provider_chatexport.lake.schema.tables import MEMBERS, MESSAGES, USERS
from airflow_provider_chatexport.sandbox.chat.world import World
from airflow_provider_chatexport.sandbox.exports.render import ExportJob, render_channels_export, render_users_export

REAL_V1 = Path(__file__).parents[2] / "fixtures" / "v1-real-shape.json"
MARKERS = frozenset("é漢😀")
CLOSED = KEYS | FLAGS | TAGS | set(WORDS) | set().union(*VALUES.values())


def rewritten(text: bytes, *, of_lines: bool = True, key: bytes | None = None, size: int = 1 << 20) -> bytes:
    """Return the sample of an export, given in pieces of a size."""
    rewriter = Rewriter(of_lines=of_lines, replacements=Replacements(key))
    pieces = [rewriter.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return b"".join(pieces) + rewriter.end()


def sampled(path: Path) -> tuple[Sample, bytes]:
    """Return the sample of a file."""
    out = io.BytesIO()
    return write_sample(path, out), out.getvalue()


def shape_of(value: Any) -> Any:
    """Return a value without what it says; keys in their order, and those of an app as the first, the second, ..."""
    numbers: dict[tuple[bool, str], int] = {}

    def of(value: Any, *, is_map: bool = False) -> Any:
        match value:
            case Pairs():
                return [
                    (
                        key if key in KEYS and not is_map else numbers.setdefault((is_map, key), len(numbers)),
                        of(each, is_map=not is_map and role_of_keys(key) is not None),
                    )
                    for key, each in value
                ]
            case list():
                return [of(each) for each in value]
            case str():
                return "text" if value else ""
            case bool() | None:
                return value
            case _:
                return type(value)

    return of(value)


class Pairs(list[tuple[str, Any]]):
    """The members of an object in their order, those that stand twice too."""


def parsed(text: bytes) -> Any:
    """Return JSON as lists of pairs."""
    return json.loads(text, object_pairs_hook=Pairs)


# What may not be left


def strings_of(value: Any) -> Iterator[str]:
    """Yield every string of a value, and every key."""
    match value:
        case dict():
            for key, each in value.items():
                yield key
                yield from strings_of(each)
        case list():
            for each in value:
                yield from strings_of(each)
        case str():
            yield value


LINK = re.compile(r"(?:https?|[a-z][a-z2-7]{12})://[a-z2-7]{13}\.example[\w/.?&=#%-]*")
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ID = re.compile(r"!members|[a-z][a-z2-7]{12,}|custom_key_\d+|\d+(\.\d+)?")
WORD = re.compile(r"(?:" + "|".join(WORDS) + r")+")


def unexplained(text: str) -> list[str]:
    """Return the words of a sample's string that nothing explains."""
    rest = LINK.sub(" ", TIME.sub(" ", UUID.sub(" ", "".join(char for char in text if char not in MARKERS))))
    words = [word for word in re.split(r"[^\w!.]+", rest) if word.strip("!.")]
    return [word for word in words if not (word in CLOSED or ID.fullmatch(word) or WORD.fullmatch(word))]


@pytest.fixture(scope="module")
def corpus(sandbox_world: World) -> dict[str, bytes]:
    """Return exports of some hundred messages in all shapes: of channels, of users, and in v1."""
    world = sandbox_world
    morning = (datetime(2025, 1, 1, 9, tzinfo=UTC), datetime(2025, 1, 1, 11, tzinfo=UTC))
    job = {"cids": ("livestream:ubuntu", "messaging:retired"), "windows": (morning, (None, None))}
    flags = ExportFlags(export_users=True)
    files = {
        f"channels {shape.value}": render_channels_export(world, ExportJob(shape=shape, flags=flags, **job))
        for shape in Shape
    }
    files |= {f"users {shape.value}": render_users_export(world, world.user_ids()[:5], shape=shape) for shape in Shape}
    files["v1"] = render_channels_export(world, ExportJob(flags=ExportFlags(version="v1"), **job))
    return {name: b"".join(pieces) for name, pieces in files.items()}


def test_every_word_of_a_sample_is_from_a_list_or_made(corpus: dict[str, bytes], tmp_path: Path) -> None:
    """The first user with an account sends a sample to strangers: whatever is in it must be explained."""
    for name, content in corpus.items():
        path = tmp_path / "export"
        path.write_bytes(content)
        _, sample = sampled(path)
        values = json.loads(sample) if name == "v1" else [json.loads(each) for each in sample.splitlines()]
        strings = set(strings_of(values))
        assert {} == {text: words for text in strings if (words := unexplained(text))}, name


def test_no_word_id_or_name_of_the_file_is_left(corpus: dict[str, bytes]) -> None:
    """The same from the other side: whatever of six letters or more was in the file is not in its sample."""
    allowed = "\0".join([*CLOSED, "example"])

    def words_in(text: bytes) -> set[str]:
        return set(re.findall(r"[^\W\d_]{6,}", UUID.sub(" ", text.decode())))

    for name, content in corpus.items():
        # With a key that is always the same: of random letters, some would make a word of the file now and then.
        sample = rewritten(content, of_lines=name != "v1", key=bytes(32))
        words = words_in(content)
        assert len(words) > 100
        assert set() == {word for word in words & words_in(sample) if word not in allowed}, name


SECRET = st.text("ABCDEFGHJKLMNPQRSTUVWXYZ", min_size=6, max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | SECRET
    | st.builds("{} {}".format, SECRET, SECRET)
    | st.builds("https://{}.example.com/{}?{}={}".format, SECRET, SECRET, SECRET, SECRET)
    | st.sampled_from([AT, CID, "2025-01-23T13:05:35.49125Z", "<p>Hi</p>\n", "1768640897123456789", ""])
)
names = st.sampled_from(sorted(KEYS)) | SECRET | st.text(max_size=4)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)
spellings = st.sampled_from(
    [
        {"ensure_ascii": is_ascii, "separators": (f"{space},", f":{space}")}
        for is_ascii in (True, False)
        for space in ("", " ")
    ]
)
json_lines = st.lists(
    st.builds(
        lambda value, spelling: json.dumps(value, **spelling).encode(),
        st.dictionaries(names, values, max_size=4),
        spellings,
    ),
    max_size=4,
)
garbage = st.binary(max_size=60) | st.text('{}[]":,\\ \n1Aetrufalsn', max_size=40).map(str.encode)


def assert_gives_nothing_away(text: bytes, sample: bytes) -> None:
    """Check that no longer word of a text, no other letter and no long number is in its sample."""
    words = set(re.findall(rb"[A-Z]{6,}", text)) | set(re.findall(rb"\d{9,}", text))
    assert not [word for word in words if word in sample]
    others = {char for char in sample.decode("utf-8", "replace") if not char.isascii()}
    assert others <= MARKERS | {"\ufffd"}


@given(json_lines)
def test_a_sample_keeps_structure_and_nothing_else(lines: list[bytes]) -> None:
    """Keys, their order, types, and what is empty stay, line by line; ids, names, texts and an app's own keys go."""
    text = b"\n".join(lines)
    sample = rewritten(text)
    assert_gives_nothing_away(text, sample)
    samples = sample.split(b"\n")
    assert len(lines or [b""]) == len(samples)
    assert [shape_of(parsed(each)) for each in lines] == [shape_of(parsed(each)) for each in samples if lines]


@given(st.lists(json_lines.map(b"\n".join) | garbage, max_size=4).map(b"\n".join), st.booleans())
def test_a_broken_file_gives_nothing_away_either(text: bytes, of_lines: bool) -> None:
    """A line that is cut off, or no JSON at all, is what a report is often about."""
    assert_gives_nothing_away(text, rewritten(text, of_lines=of_lines))


@given(st.lists(json_lines.map(b"\n".join) | garbage, max_size=4).map(b"\n".join), st.booleans(), st.integers(1, 40))
def test_how_a_file_is_read_changes_nothing(text: bytes, of_lines: bool, size: int) -> None:
    """Files are read in pieces, which end in the middle of a string, an escape or a number."""
    key = bytes(32)
    whole = rewritten(text, of_lines=of_lines, key=key)
    assert whole == rewritten(text, of_lines=of_lines, key=key, size=size)


def test_two_samples_of_a_file_differ() -> None:
    """The key is random in each run: to have two samples, or to guess a value, must not help."""
    text = line("message", message(text="what was said", n=123456))
    assert rewritten(text) != rewritten(text)


# What a line becomes


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        (b"\xef\xbb\xbf{}\r\n\r\n{}", b"\xef\xbb\xbf{}\r\n\r\n{}"),
        (b'{"type" : "message" ,\t"data":{ }}\n', b'{"type" : "message" ,\t"data":{ }}\n'),
        (b'{"id":null,"pinned":true,"reply_count":0}', b'{"id":null,"pinned":true,"reply_count":0}'),
        (b'{"\\u0074ype":"regular","text":""}', b'{"\\u0074ype":"regular","text":""}'),
        (b'{"favourite":1,"Favourite":0,"favourite":1}', b'{"custom_key_1":1,"custom_key_2":0,"custom_key_1":1}'),
        (b'{"custom":{"a":{"b":[true]}}}', b'{"custom":{"custom_key_1":{"custom_key_2":[true]}}}'),
        (b"{}\nlet me in, please\n[]", b"{}\nx x x, x\n[]"),
        (b'{"pinned":tru', b'{"pinned":x'),
        (b'{"a":NaN,"b":-Infinity,"c":01}', b'{"custom_key_1":NaN,"custom_key_2":-Infinity,"custom_key_3":x}'),
    ],
)
def test_what_says_nothing_stays_as_it_is(text: bytes, sample: bytes, tmp_path: Path) -> None:
    """Space, line ends, escapes of names and order are what a stranger's parser has to cope with."""
    path = tmp_path / "export"
    path.write_bytes(text)
    assert sample == sampled(path)[1]


def test_references_match_as_before() -> None:
    """By its ids a reader sees which object belongs to which, wherever an id stands, in any spelling."""
    text = b"\n".join(
        [
            encoded({"user": {"id": "ann-17"}, "channel": {"cid": "acme:a:42", "type": "acme", "id": "a:42"}}),
            encoded({"user": "ann-17", "channel_type": "acme", "channel_id": "a:42", "assignee": "ann-17"}),
            encoded({"mentioned_channel_members": {"ann-17": {"channel_role": "owner"}}, "cid": "messaging:17"}),
            encoded({"reaction_counts": {"applause": 7, "love": 1}, "type": "applause", "channel_id": 17, "id": "17"}),
            rb'{"user":"ann\u002d17","id":"ann-17-1f0e1f3c-1d1e-4b7a-8f3e-0123456789ab"}',
        ]
    )
    first, second, third, fourth, fifth = map(json.loads, rewritten(text).splitlines())
    ann = first["user"]["id"]
    assert {ann} == {second["user"], second["custom_key_1"], *third["mentioned_channel_members"], fifth["user"]}
    assert fifth["id"].startswith(f"{ann}-")
    assert first["channel"]["cid"] == f"{first['channel']['type']}:{first['channel']['id']}"
    assert (first["channel"]["type"], first["channel"]["id"]) == (second["channel_type"], second["channel_id"])
    assert [fourth["type"], "love"] == list(fourth["reaction_counts"])
    assert third["cid"] == f"messaging:{fourth['id']}" == f"messaging:{fourth['channel_id']}"


def test_a_string_longer_than_the_memory_allows_becomes_x() -> None:
    """An attachment may be inside a message, as text: it must neither fill the memory nor be left."""
    secret = b"secret " * (MAX_STRING_BYTES // 3)
    sample = rewritten(b'{"text":"' + secret + rb"\"" + b'","id":"ann"}\n{"text":"' + secret, size=100_000)
    first, second = sample.split(b"\n")
    assert re.fullmatch(rb'\{"text":"x+","id":"[a-z2-7]{13}"\}', first)
    assert re.fullmatch(rb'\{"text":"x+', second)
    assert 2 * len(secret) < len(sample) < 2 * len(secret) + 100


def test_a_deep_value_has_no_names() -> None:
    """A file of nothing but brackets must not fill the memory."""
    deep = b'{"id":' * (MAX_DEPTH + 1) + b'{"text":"secret"}' + b"}" * (MAX_DEPTH + 1)
    sample = rewritten(deep + b"\n" + b'{"text":"","type":"message"}')
    assert sample.endswith(b'\n{"text":"","type":"message"}')
    assert b"secret" not in sample
    assert MAX_DEPTH + 4 == sample.count(b"{") + 1


def test_keys_beyond_ten_thousand_are_not_numbered() -> None:
    """Keys may be ids, one for each user of an app: they must not fill the memory."""
    names = [f"app key {number}" for number in range(MAX_NUMBERED_KEYS + 2)]
    keys = re.findall(rb'"(\w+)"', rewritten(encoded([dict.fromkeys(names), dict.fromkeys(reversed(names))])))
    assert b"custom_key_%d" % MAX_NUMBERED_KEYS == keys[MAX_NUMBERED_KEYS - 1]
    assert re.fullmatch(rb"custom_key_[a-z][a-z2-7]{12,}", keys[MAX_NUMBERED_KEYS])
    assert keys[: len(names)] == keys[: len(names) - 1 : -1]
    assert len(names) == len(set(keys))


# What a loader makes of it


def counts_of(path: Path, folder: Path) -> dict[str, Any]:
    """Return what a conversion counts; names of entities that are the app's own are counted together."""
    counts = convert(path, folder=folder).counts
    known = {name: n for name, n in counts.entities.items() if name in CLOSED}
    return {
        "lines": counts.lines,
        "rows": counts.rows,
        "entities": known | {"others": sum(counts.entities.values()) - sum(known.values())},
        "rejected": (counts.rejected, counts.rejected_lines),
        "elsewhere": (counts.duplicates, counts.out_of_window, counts.other_entities),
        "cast failures": counts.cast_failures,
    }


def assert_loads_alike(path: Path, folder: Path) -> None:
    """Check that a loader counts the same in a file and in its sample."""
    sample = folder / f"{path.name}.sample"
    with sample.open("wb") as file:
        write_sample(path, file)
    assert counts_of(path, folder) == counts_of(sample, folder)


def test_the_sample_of_an_export_loads_as_the_export_does(corpus: dict[str, bytes], tmp_path: Path) -> None:
    """A sample stands for its file: the same rows, rejects and cast failures in every shape."""
    for name, content in corpus.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert_loads_alike(path, tmp_path)


def test_the_sample_of_a_real_v1_export_loads_as_the_export_does(tmp_path: Path) -> None:
    """Also spread over lines, packed, and without its brackets, as people keep it."""
    element = json.loads(REAL_V1.read_bytes())[0]
    (tmp_path / "packed").write_bytes(gzip.compress(REAL_V1.read_bytes()))
    (tmp_path / "spread").write_text(json.dumps([element], indent=2))
    (tmp_path / "alone").write_text(json.dumps(element, indent=2))
    for path in (REAL_V1, *(tmp_path / name for name in ("packed", "spread", "alone"))):
        assert_loads_alike(path, tmp_path)


ODD = st.sampled_from(
    [
        *(None, True, False, 0, 1, 5, -3, 1.0, 1.5, 1e3, 1e30, 0.25, 10**18, 2**63 - 1, 2**63, 10**19, 10**40),
        *("", "0", "1", "5", "-7", "007", "1.5", "1e3", "9223372036854775807", "9223372036854775808", "1" * 30),
        *("true", "False", "yes", "maybe", "one two", "null", CID, "u1", "ünï", "https://example.com/a.png"),
        *(AT, "2025-02-30T00:00:00Z", "2025-01-01 00:00:00+05:30", "2025-01-01T00:00:00", "2025-01-01", "24:00"),
        *(
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "1970-01-01T00:00:00.000Z",
            "2025-01-01T00:00:00.0000000001Z",
        ),
        *(1768640897123456789, "1768640897123456789", 12345, "12345", 4.1e18, "2025-01-01T00:00:00+25:00"),
        *([], {}, ["a", ""], [1], [{"id": "u1"}, {"id": ""}, {}], {"id": ""}, {"id": "u1"}, {"id": 5}, [None], [["a"]]),
    ]
)
COLUMNS = {
    ("message", message): sorted({*MESSAGES.known_keys, "channel_type", "channel_id", "own key"} - {"custom"}),
    ("member", member): sorted({*MEMBERS.known_keys, "cid", "own key"} - {"custom"}),
    ("user", user): sorted({*USERS.known_keys, "own key"} - {"custom"}),
}


@pytest.mark.parametrize(
    "value",
    [
        *(0, "0", -62135596800, "-62135596800", "5", "12345", 12345, "1736899200000", 10**17, 9214646399999999999),
        *(9214646400000000000, "9214646400000000000", 2**63 - 1, 2**63, "0001-01-01T05:30:00+05:30"),
    ],
)
def test_a_sample_keeps_whether_a_value_is_a_time(value: Any, tmp_path: Path) -> None:
    """Regression: a number that no time column can hold became one that it can, and an unset time became a value."""
    members = [member(f"u{number}", archived_at=value) for number in range(20)]
    lines = [line("channel", channel()), *(line("member", each) for each in members)]
    assert_loads_alike(write_lines(tmp_path / "export.ndjson", lines), tmp_path)


@st.composite
def odd_lines(draw: st.DrawFn) -> bytes:
    """Draw a line of an entity with values of the wrong kinds, or what is no line of an export."""
    (name, make), keys = draw(st.sampled_from(sorted(COLUMNS.items(), key=str)))
    fields = make(**draw(st.dictionaries(st.sampled_from(keys), ODD, max_size=3)))
    whole = line(name, fields, draw(st.sampled_from([shape for shape in Shape if shape is not Shape.CHANNEL])))
    usual = st.just(whole)
    cut = st.integers(0, len(whole)).map(lambda size: whole[:size])
    other = st.sampled_from(
        [
            line("reaction", reaction(kind="own kind")),
            line("read", read()),
            line("poll_vote", {"id": "v1", "option_id": "o1"}),
            line("own entity", {"id": "x"}),
            encoded({"channel": channel(), "messages": [message("m9"), message("m9"), {}], "members": [member()]}),
            b'{"type":"message","data":{"id":"a\xff"}}',
            rb'{"type":"message","data":{"id":"\x"}}',
            rb'{"message":{"id":"m\ud800","cid":"a:b","text":"\ud800","created_at":"2026-01-01T10:00:00Z"}}',
            b'{"id":"a","id":"b"}',
            b"not JSON",
            b"5",
            b"",
        ]
    )
    return draw(usual | usual | usual | cut | other)


@settings(max_examples=examples(3))
@given(st.lists(odd_lines(), min_size=24, max_size=24))
@example([rb'{"message":{"id":"m\ud800","cid":"a:b","text":"\uD800","created_at":"2026-01-01T10:00:00Z"}}'])
def test_odd_values_stay_as_odd_as_they_are(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    """A value that no column can hold is what a sample may be sent for: its replacement must fail in the same way."""
    folder = tmp_path_factory.mktemp("odd")
    # The channel stands first in every file, so that not all is rejected for the lack of one.
    assert_loads_alike(write_lines(folder / "export.ndjson", [line("channel", channel()), *lines]), folder)


# Files


def test_a_packed_file_becomes_a_plain_sample(tmp_path: Path) -> None:
    """People must be able to look at it before they send it."""
    path = tmp_path / "export.gz"
    text = line("message", message()) + b"\n"
    path.write_bytes(gzip.compress(text))
    report, sample = sampled(path)
    assert shape_of(parsed(text)) == shape_of(parsed(sample))
    assert (len(text), len(sample), 0) == (report.bytes_in, report.bytes_out, report.n_custom_keys)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html></html>", b"what is this", gzip.compress(b"{}\n" * 999)[:-9]],
    ids=["empty", "a page", "words", "cut off"],
)
def test_what_is_no_export_is_refused(content: bytes, tmp_path: Path) -> None:
    """A page of the file host, or a file that is cut off, is no sample of anything."""
    path = tmp_path / "export"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        sampled(path)


def test_no_line_is_held_in_memory(tmp_path: Path) -> None:
    """Exports have gigabytes, and one line of them may be a whole channel: what is read is written at once."""
    element = encoded({"channel": channel(), "messages": [message(f"m{number}") for number in range(9_000)]})
    written: list[int] = []

    class Target(io.BytesIO):
        def write(self, piece: Any) -> int:
            written.append(len(piece))
            return len(piece)

    report = write_sample(write_lines(tmp_path / "export.ndjson", [element]), Target())
    assert report.bytes_out == sum(written) > 1_500_000
    assert max(written) < 500_000
