"""Export files as bytes: lines with their numbers and offsets, arrays in fragments, whatever the chunks."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_objects import CID, channel, encoded, message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_chatexport.errors import InputError
from airflow_provider_chatexport.lake.normalize.export_file import BOM, LOOKED_AT_BYTES, ExportReader, Line, LongLine
from airflow_provider_chatexport.lake.normalize.json_slicer import STREAMED_LISTS, JsonFragment

FIXTURE = Path(__file__).parents[2] / "fixtures" / "v1-real-shape.json"
LIMIT = 1000

many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class InChunks(ExportReader):
    """The same file, read in chunks of another size."""

    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        super().__init__(path)

    def chunks(self, size: int = 0) -> Any:
        return super().chunks(max(3, self._size))


def file(folder: Path, content: bytes) -> Path:
    path = folder / "export"
    path.write_bytes(content)
    return path


def lines(folder: Path, content: bytes, limit: int = LIMIT) -> list[tuple[int, int, bytes]]:
    return [(line.number, line.offset, line.raw) for line in ExportReader(file(folder, content)).lines(limit)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_line_ends_of_any_kind_are_no_part_of_a_line(end: bytes, last: bytes, tmp_path: Path) -> None:
    """CRLF, and a last line without an end, are legal and common."""
    assert [b'{"a":1}', b'{"b":2}'] == [
        raw.rstrip(b"\r") for _, _, raw in lines(tmp_path, b'{"a":1}' + end + b'{"b":2}' + last)
    ]


@given(n_bytes=st.integers(15, 25), size=st.integers(3, 64), last=st.sampled_from([b"", b"\r", b"\r\n"]))
@many
def test_the_end_of_a_line_does_not_count_towards_the_limit(
    n_bytes: int, size: int, last: bytes, tmp_path: Path
) -> None:
    """Regression: with CRLF an object of exactly the limit was too long. A chunk may end between CR and LF."""
    whole = b'["%b"]' % (b"x" * (n_bytes - 4))
    found = InChunks(file(tmp_path, whole + b"\r\n" + whole + last), size).lines(20)
    assert [(n_bytes, whole[:20])] * 2 == [(each.size, each.raw) for each in found if isinstance(each, Line)]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    """A reject names the line that an editor shows."""
    assert [(1, 0, b"{}"), (4, 7, b"{}")] == lines(tmp_path, b"{}\n\n  \n{}\n")


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    """Some tools write one; offsets still count from the file's first byte."""
    assert [(1, 3, b"{}"), (2, 6, b"{}")] == lines(tmp_path, BOM + b"{}\n{}\n")


@pytest.mark.parametrize("members", [1, 3])
def test_gzip_is_known_by_its_first_bytes(members: int, tmp_path: Path) -> None:
    """Whether export files are packed is not documented; names say nothing. Packed files may have several members."""
    content = b"".join(gzip.compress(b'{"a":%d}\n' % number) for number in range(members))
    assert [b'{"a":%d}' % number for number in range(members)] == [raw for _, _, raw in lines(tmp_path, content)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-9],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:40] + b"\xff\xff\xff\xff" + packed[44:],
        lambda packed: packed + b"and more",
    ],
    ids=["without its end", "half", "changed", "with more behind"],
)
def test_a_damaged_gzip_file_is_one_sentence(damage: Any, tmp_path: Path) -> None:
    """The lines before the damage must not be loaded as if they were all."""
    packed = gzip.compress(b"".join(b'{"a":%d}\n' % number for number in range(1000)))
    with pytest.raises(InputError, match=r"breaks off or is damaged .* fetch it again"):
        lines(tmp_path, damage(packed))


def test_an_overlong_line_is_known_by_its_size_and_begins_as_it_did(tmp_path: Path) -> None:
    """A line of a gigabyte must not be held in memory, and must be countable."""
    content = b'{"a":1}\n' + b'["b", "' + b"x" * 5000 + b'"]\n{"c":3}\n'
    found = list(ExportReader(file(tmp_path, content)).lines(LIMIT))
    assert [(1, False), (2, True), (3, False)] == [(line.number, line.too_long) for line in found]
    assert (5009, content[8 : 8 + LIMIT], 8 + 5010) == (found[1].size, found[1].raw, found[2].offset)


@given(
    content=st.lists(st.integers(0, 40).map(lambda n: b'["' + b"x" * n + b'"]'), max_size=20), size=st.integers(3, 64)
)
@many
def test_lines_do_not_depend_on_chunks(content: list[bytes], size: int, tmp_path: Path) -> None:
    """A chunk may end in the middle of a line, of its end, or of an overlong line."""
    path = file(tmp_path, b"{}\n" + b"\n".join(content))
    whole = list(ExportReader(path).lines(20))
    assert whole == list(InChunks(path, size).lines(20))


@given(
    elements=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    size=st.integers(3, 64),
    last=st.sampled_from(["", "\n"]),
)
@many
def test_long_lines_do_not_depend_on_chunks(elements: list[int], size: int, last: str, tmp_path: Path) -> None:
    """A channel's line is taken in fragments; the lines around it keep their numbers and offsets."""
    written = [json.dumps({"channel": {"cid": CID}, "messages": [{"id": n}] * n}) for n in elements]
    path = file(tmp_path, ("\n".join(f'{element}\n{{"line":1}}' for element in written) + last).encode())

    def found(source: ExportReader) -> Iterator[Any]:
        for line in source.lines(20):
            yield [*line.fragments(20)] if isinstance(line, LongLine) else line
            if isinstance(line, LongLine):
                yield (line.number, line.offset, line.size)

    whole = list(found(ExportReader(path)))
    assert whole == list(found(InChunks(path, size)))
    assert [len(element) for element in written] == [size for _, _, size in whole[1::3]]
    assert [2 * n for n in range(1, len(elements) + 1)] == [line.number for line in whole[2::3]]


@pytest.mark.parametrize(
    "content",
    [b"", b" \n\t\n", b"\n" * 10_000, BOM, gzip.compress(b""), gzip.compress(b"\n")],
    ids=["no byte", "blanks", "many blanks", "a byte order mark", "packed", "packed blanks"],
)
def test_a_file_with_nothing_in_it_is_known_as_empty(content: bytes, tmp_path: Path) -> None:
    """The export of a quiet window is an empty file, and so is a failed download: the caller has to know which."""
    reader = ExportReader(file(tmp_path, content))
    assert reader.is_empty
    assert not list(reader.lines(LIMIT))


def test_a_file_that_begins_with_many_blanks_is_not_empty(tmp_path: Path) -> None:
    """Blanks before the first line are legal, however many they are."""
    assert not ExportReader(file(tmp_path, b"\n" * 10_000 + b'{"a":1}')).is_empty


def tarred(content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo("export.ndjson")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("export.ndjson", content)
    return target.getvalue()


def a_catalog(folder: Path) -> bytes:
    duckdb.connect(str(path := folder / "catalog")).close()
    return path.read_bytes()


def a_parquet_file(folder: Path) -> bytes:
    pq.write_table(pa.table({"id": ["m1"]}), path := folder / "parquet")
    return path.read_bytes()


LINE = b'{"message":{"id":"m1","text":"hi"}}\n'
FOREIGN = {
    "a zip archive, and not an export file; unpack it first": zipped(LINE),
    "a tar archive, and not an export file; unpack it first": tarred(LINE),
    "packed with bzip2, and not an export file; unpack it first": bz2.compress(LINE),
    "packed with xz, and not an export file; unpack it first": lzma.compress(LINE),
    # Python has no zstd before 3.14: the first bytes of a frame.
    "packed with zstd, and not an export file; unpack it first": b"\x28\xb5\x2f\xfd\x24\x24\x21\x01\x00" + LINE,
    "packed with gzip twice": gzip.compress(gzip.compress(LINE)),
    "a DuckDB database, such as the catalog of a lake, and not an export file; query it": a_catalog,
    "a Parquet file, and not an export file; give the file that an export's link leads to": a_parquet_file,
    "an HTML page": b'<!DOCTYPE html>\n<html><body>{"error":"expired"}</body></html>',
    "an XML document": b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "CSV or a similar table": b"id,text,created_at\n1,hi,2025-01-01\n",
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_of_another_format_is_refused_by_its_name(what: str, packed: bool, tmp_path: Path) -> None:
    """Only with the real cause does a person know what to do. A tar archive was read as an export with rejects."""
    content = FOREIGN[what]
    content = content(tmp_path) if callable(content) else content
    with pytest.raises(InputError, match=f"export is {re.escape(what)}"):
        ExportReader(file(tmp_path, gzip.compress(content) if packed else content))


@pytest.mark.parametrize("marked", [True, False], ids=["with a mark", "without"])
@pytest.mark.parametrize("end", ["le", "be"])
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("text", ['{"a":1}\n{"b":2}\n', ' \n["x"]', "[]"])
def test_text_in_another_encoding_is_refused_by_its_name(
    text: str, bits: int, end: str, marked: bool, tmp_path: Path
) -> None:
    """Editors and shells of Windows write it, and it looks right there."""
    content = ("\ufeff" * marked + text).encode(f"utf-{bits}-{end}")
    with pytest.raises(InputError, match=f"is text in UTF-{bits}, and not an export file; save it as UTF-8 first"):
        ExportReader(file(tmp_path, content))


@pytest.mark.parametrize("text", [b'{"id": "DUCK"}', b'{"text":"%b ustar"}' % (b"x" * 248)])
def test_a_line_with_the_mark_of_another_format_is_a_line(text: bytes, tmp_path: Path) -> None:
    """People write such letters, and an id may begin with them."""
    assert [(1, 0, text)] == lines(tmp_path, text)


@pytest.mark.parametrize("at", range(1, 8))
def test_one_zero_byte_does_not_make_a_file_utf_16(at: int, tmp_path: Path) -> None:
    """Regression: a zero byte in second place counted as UTF-16, and cost the whole file."""
    damaged = bytearray(LINE + LINE)
    damaged[at] = 0
    assert [1, 2] == [number for number, _, _ in lines(tmp_path, bytes(damaged))]


@pytest.mark.parametrize(
    "content",
    [
        b"PK",
        b'"text"',
        b"null\n",
        b"Hello, world\n",
        b"a { color: red }\n{}",
        b"text\n".ljust(LOOKED_AT_BYTES + 1) + b'\n{"message":{}}',
        b"\x00\x00\x00\x20ftypisom",
    ],
)
def test_a_file_that_is_no_export_is_refused(content: bytes, tmp_path: Path) -> None:
    """A file saved under an export's name must not become a million rejects."""
    with pytest.raises(InputError, match="is not an export file: it begins with neither an object nor an array"):
        ExportReader(file(tmp_path, content))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """Paths are mistyped."""
    with pytest.raises(InputError, match="cannot be read: No such file"):
        ExportReader(tmp_path / "nothing")


# One JSON array

nasty = st.text(st.sampled_from('ab"\\[]{},: \né😀\u2028')) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | nasty,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty, inner, max_size=3),
    max_leaves=8,
)
streamed = st.dictionaries(st.sampled_from(["messages", "members", "reads", "read"]), st.lists(values, max_size=4))
elements = (
    st.builds(
        lambda head, lists: {"channel": {"cid": "a:b"}, **lists, **head},
        st.dictionaries(nasty, values, max_size=3),
        streamed,
    )
    | values
)


def joined(fragments: list[JsonFragment]) -> list[Any]:
    """The array that fragments were cut from."""
    array: list[Any] = []
    held: dict[str, Any] = {}
    for fragment in fragments:
        if fragment.key is None:
            array.append(json.loads(fragment.raw) if fragment.raw else held)
            held = {}
        elif fragment.item:
            held.setdefault(fragment.key, []).append(json.loads(fragment.raw))
        else:
            held[fragment.key] = json.loads(fragment.raw)
    return array


def without_empty_streamed_lists(array: list[Any]) -> list[Any]:
    """A streamed list without items leaves no fragment."""
    return [
        {key: value for key, value in element.items() if not (key in STREAMED_LISTS and value == [])}
        if isinstance(element, dict)
        else element
        for element in array
    ]


@given(
    array=st.lists(elements, max_size=4),
    size=st.integers(3, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
@many
def test_fragments_do_not_depend_on_chunks(
    array: list[Any], size: int, indent: int | None, ascii_only: bool, tmp_path: Path
) -> None:
    """A chunk may end inside a string, an escape or a number; brackets and quotes may stand in strings."""
    path = file(tmp_path, json.dumps(array, indent=indent, ensure_ascii=ascii_only).encode())
    whole = list(ExportReader(path).fragments())
    assert whole == list(InChunks(path, size).fragments())
    assert without_empty_streamed_lists(array) == without_empty_streamed_lists(joined(whole))


@given(array=st.lists(elements, min_size=1, max_size=2), cut=st.floats(0, 1, exclude_max=True), size=st.integers(3, 40))
@many
def test_an_array_that_breaks_off_is_refused(array: list[Any], cut: float, size: int, tmp_path: Path) -> None:
    """Half an array is half a channel, and would be loaded as the whole."""
    content = json.dumps(array).encode()
    path = file(tmp_path, content[: max(1, int(len(content) * cut))])
    with pytest.raises(InputError, match="fetch it again"):
        list(InChunks(path, size).fragments())


def test_items_of_a_channel_come_one_by_one(tmp_path: Path) -> None:
    """One channel's element may be gigabytes: its lists are never held."""
    content = encoded(
        [{"channel": {"cid": CID}, "messages": [{"id": "m1"}, {"id": "m2"}], "members": [], "draft": None}]
    )
    found = [(fragment.key, fragment.item) for fragment in ExportReader(file(tmp_path, content)).fragments()]
    messages = [("messages", True), ("messages", True)]
    assert [("channel", False), *messages, ("members", False), ("draft", False), (None, False)] == found


@given(
    array=st.lists(elements, max_size=3),
    size=st.integers(3, 40),
    limit=st.integers(1, 60),
)
@many
def test_a_value_over_the_limit_is_known_by_its_size_and_begins_as_it_did(
    array: list[Any], size: int, limit: int, tmp_path: Path
) -> None:
    """A value of a gigabyte must not be held; those before and after it are as they would be."""
    content = json.dumps(array).encode()
    path = file(tmp_path, content)
    whole = list(ExportReader(path).fragments())
    with contextlib.suppress(InputError):  # a key over the limit
        cut = list(InChunks(path, size).fragments(limit))
        assert [(fragment.key, fragment.offset, fragment.size, fragment.raw[:limit]) for fragment in whole] == [
            (fragment.key, fragment.offset, fragment.size, fragment.raw) for fragment in cut
        ]


def test_offsets_of_fragments_lead_to_their_first_byte(tmp_path: Path) -> None:
    """A reject's offset is where a person looks into the file."""
    content = BOM + b' [ {"channel" : {"cid":"a:b"} ,\n "messages":[ 1 , "two" ]}, 3 ]'
    fragments = [fragment for fragment in InChunks(file(tmp_path, content), 5).fragments() if fragment.raw]
    assert [fragment.raw for fragment in fragments] == [
        content[fragment.offset :][: len(fragment.raw)] for fragment in fragments
    ]


@pytest.mark.parametrize(
    "content", [b"[] and more", b"[1] []", b"[{1:2}]", b'[{"a":1', b"[", b'[{"a"', b'["a', b"[tru"]
)
def test_an_array_that_is_not_whole_is_refused_with_the_place(content: bytes, tmp_path: Path) -> None:
    """The sentence says at which byte and in which element, so that the file can be looked at."""
    with pytest.raises(InputError, match=r"at byte \d+ \(element \d+\); it is not a whole export file, fetch it again"):
        list(ExportReader(file(tmp_path, content)).fragments())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[1,]", "has a comma before an end"),
        (b"[1,,2]", "has no value where one should be"),
        (b"[,1]", "has no value where one should be"),
        (b"[1 2]", "has no comma between two values"),
        (b"[1:2 3]", "has no comma between two values"),
        (b'[{"messages":[{},]}]', "has a comma before an end"),
        (b'[{"messages":[{} {}]}]', "has no comma between two values"),
        (b'[{"messages":[{}:{}]}]', "has no comma between two values"),
        (b'[{"channel" {}}]', "has no colon after a key"),
        (b'[{"channel",{}}]', "has no colon after a key"),
        (b'[{"channel"::{}}]', "has no value where one should be"),
        (b'[{"channel":}]', "has no value where one should be"),
        (b'[{"channel":{} "messages":[]}]', "has no comma between two values"),
        (b'[{"channel":{},}]', "has a comma before an end"),
        (b'[{"channel":{},,"messages":[]}]', "has a key that is not a string"),
        (b'{\n"a":1\n},,\n{"a":1}', "has no value where one should be"),
    ],
)
def test_marks_between_values_stand_where_json_has_them(content: bytes, fault: str, tmp_path: Path) -> None:
    """Regression: a file that a person joined or cut, and that lacked some value, was taken without a word."""
    with pytest.raises(InputError, match=f"{fault} at byte"):
        list(InChunks(file(tmp_path, content), 3).fragments())


@given(array=st.lists(values, max_size=3), size=st.integers(3, 40), limit=st.integers(15, 60))
@many
def test_a_channel_s_list_that_is_too_long_to_be_held_comes_in_items(
    array: list[Any], size: int, limit: int, tmp_path: Path
) -> None:
    """Even if the channel, which says whose list this is, comes after it."""
    path = file(tmp_path, encoded([{"members": array, "channel": {"cid": CID}}]))
    fragments = list(InChunks(path, size).fragments(limit))
    assert {len(encoded(array)) > limit} >= {fragment.item for fragment in fragments if fragment.key == "members"}


def test_a_string_across_many_chunks_stays_whole(tmp_path: Path) -> None:
    """A message's text may be longer than a chunk."""
    text = 'x\\"' * 3000
    content = encoded([{"channel": channel(), "messages": [message(text=text)]}])
    items = [
        json.loads(fragment.raw) for fragment in InChunks(file(tmp_path, content), 50).fragments() if fragment.item
    ]
    assert [text] == [item["text"] for item in items]


def test_the_real_export_comes_in_fragments() -> None:
    """Keys, order, types and escaping of a real v1 export."""
    whole = json.loads(FIXTURE.read_bytes())
    fragments = list(InChunks(FIXTURE, 7).fragments())
    assert whole == [{"messages": [], "members": [], **element} for element in joined(fragments)]
