"""``chatexport sql`` and ``tables``, as an analyst types them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from command_line import Ran, Run, assert_one_sentence, on_a_terminal

from airflow_provider_chatexport.lake.catalog.macros import MACROS
from airflow_provider_chatexport.lake.schema.tables import MESSAGES

# Values that a reader of CSV or a terminal may take for something else.
ODD = """SELECT * FROM (VALUES
    (1, 'a,"b"', [1, 2], TIMESTAMPTZ '2026-01-01 10:00:00Z', true),
    (2, '', NULL, NULL, false),
    (3, NULL, [], TIMESTAMPTZ '2026-01-01 10:00:00.000001Z', NULL),
    (4, 'two' || chr(10) || 'lines ' || chr(27) || '[31m \u00e9\u6f22', [3], NULL, NULL)
) odd (number, words, many, moment, is_true)"""


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "SELECT 1; SELECT 2",
        "CREATE TABLE mine (id INTEGER)",
        "COPY (SELECT 1) TO 'a-file-of-the-lake'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'a-file-of-the-lake'",
        "SET threads = 1",
        "CREATE TABLE mine AS PIVOT messages ON type IN ('regular')",
    ],
)
def test_sql_refuses_what_is_not_one_query(run: Run, small_lake: Path, statement: str) -> None:
    assert_one_sentence(run("sql", statement, "--lake", small_lake), 2, "give one query")


def test_sql_takes_every_kind_of_query(run: Run, small_lake: Path) -> None:
    """DuckDB has more ways to read than SELECT."""
    for query in (
        "FROM loads",
        "DESCRIBE messages",
        "SHOW TABLES",
        "WITH a AS (SELECT 1 AS b) FROM a",
        "-- how many\nFROM loads",
        "PIVOT messages ON type IN ('regular', 'reply') USING count(*)",
    ):
        assert run("sql", query, "--lake", small_lake, "--json").json["rows"]


def test_a_pivot_has_to_name_its_values(run: Run, small_lake: Path) -> None:
    """Without values, DuckDB creates a type of them first, and a query creates nothing."""
    for query in ("PIVOT messages ON type USING count(*)", "COPY (PIVOT messages ON type) TO 'a-file-of-the-lake'"):
        assert_one_sentence(run("sql", query, "--lake", small_lake), 2, "PIVOT has to name its values")


def test_values_of_any_type_are_json(run: Run, small_lake: Path) -> None:
    """Numbers are numbers, times are RFC3339 at any depth, and a value without a JSON type is null or text."""
    values = {
        "sum(1)": 1,
        "1.5::DECIMAL(4, 2)": 1.5,
        "'nan'::DOUBLE": None,
        "'inf'::DOUBLE": None,
        "'a'::BLOB": "YQ==",
        "[TIMESTAMPTZ '2026-01-01 10:00:00Z']": ["2026-01-01T10:00:00.000000Z"],
        "{'at': TIMESTAMPTZ '2026-01-01 10:00:00Z'}": {"at": "2026-01-01T10:00:00.000000Z"},
        "DATE '2026-01-01'": "2026-01-01",
        "1.00000000000000000001::DECIMAL(30, 20)": "1.00000000000000000001",
        "0.1::DECIMAL(30, 20)": 0.1,
        "TIMETZ '10:00:00+02'": "10:00:00+02",
        "TIME '24:00:00'": "24:00:00",
        "TIME '10:00:00.5'": "10:00:00.5",
        "'101'::BIT": "101",
        "340282366920938463463374607431768211455::UHUGEINT": "340282366920938463463374607431768211455",
    }
    rows = run("sql", f"SELECT {', '.join(values)}", "--lake", small_lake, "--json").json["rows"]
    assert [[*values.values()]] == rows


def test_columns_with_the_same_name_are_all_printed(run: Run, small_lake: Path) -> None:
    result = run("sql", "SELECT 1 AS a, 2 AS a, TIME '10:00:00' AS t", "--lake", small_lake, "--json").json
    assert ([[1, 2, "10:00:00"]], "t") == (result["rows"], result["columns"][2])


@pytest.mark.parametrize(
    "value",
    [
        "text::INTEGER",
        "strptime(text, '%Y')",
        "json_extract(text, '$.a')",
        "json_extract(custom, '$[' || text)",
        "regexp_matches('a', '(' || text)",
        "now() AT TIME ZONE text",
        "date_trunc(text, now())",
        "error(text)",
    ],
)
def test_a_failing_query_quotes_no_message(run: Run, small_lake: Path, value: str) -> None:
    """DuckDB's own sentence quotes the value, and errors go to logs. The query is right, and fails on the data."""
    ran = run("sql", f"SELECT {value} FROM messages", "--lake", small_lake)
    assert_one_sentence(ran, 1, "TRY_CAST")
    assert "text of" not in ran.err


# Formats


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_shows_what_has_room(columns: int, small_lake: Path) -> None:
    """The table is DuckDB's: with types, and with a mark where columns or rows are left out; then how to see all."""
    query = "SELECT * FROM messages, range(100)"
    shown = on_a_terminal("sql", query, "--lake", str(small_lake), columns=columns, stream="stdout").splitlines()
    assert max(map(len, shown)) <= columns
    assert shown[0].startswith("\u250c")
    assert any("messaging:general" in each for each in shown)
    assert any("varchar" in each for each in shown)
    assert f"{len(list(MESSAGES)) + 2} columns" in shown[-1]
    assert "100 rows (40 shown)" in shown[-1]
    assert len(shown) < 60


def test_a_terminal_shows_a_single_wide_row_as_a_record(small_lake: Path) -> None:
    """A table would have three of its columns. A row that has room is drawn."""
    query = "FROM messages LIMIT 1"
    shown = on_a_terminal("sql", query, "--lake", str(small_lake), columns=80, stream="stdout").splitlines()
    assert "--- row 1" == shown[0]
    assert {column.name for column in MESSAGES} <= {each.split()[0] for each in shown if each.strip()}
    shown = on_a_terminal("sql", "SELECT 1 AS a", "--lake", str(small_lake), columns=80, stream="stdout").splitlines()
    assert shown[0].startswith("\u250c")


def test_a_terminal_without_lines_to_draw_with_gets_a_table(small_lake: Path) -> None:
    """Escaped box characters would be no table. Text keeps its escapes."""
    shown = on_a_terminal(
        "sql", "SELECT 'x\u00e9' AS a", "--lake", str(small_lake), columns=80, stream="stdout", PYTHONIOENCODING="ascii"
    )
    assert "+" == shown[0]
    assert "x\\xe9" in shown


def test_a_pipe_gets_every_row_on_a_line_with_every_column(run: Run, small_lake: Path) -> None:
    """``| grep`` and ``| wc -l`` see all of the result, and no control sequence of a message reaches a terminal."""
    shown = run("sql", ODD, "--lake", small_lake).out
    assert [
        "number  words                 many    moment                       is_true",
        '     1  a,"b"                 [1, 2]  2026-01-01T10:00:00.000000Z  true',
        "     2                        NULL    NULL                         false",
        "     3  NULL                  []      2026-01-01T10:00:00.000001Z  NULL",
        "     4  two\\nlines \ufffd[31m \u00e9\u6f22  [3]     NULL                         NULL",
    ] == shown.splitlines()
    assert 30_001 == run("sql", "FROM range(30000)", "--lake", small_lake).out.count("\n")
    long = run("sql", "SELECT repeat('x', 5000 * range) AS text, range AS n FROM range(2)", "--lake", small_lake).out
    assert [len("text".ljust(100) + "  n"), 103, 5003] == list(map(len, long.splitlines())), "no row is all spaces"
    assert "a\n" == run("sql", "SELECT 1 AS a WHERE false", "--lake", small_lake).out


def test_output_is_rows_alone_wherever_python_runs(small_lake: Path) -> None:
    """Regression: DuckDB takes a process without a main file for a shell, and drew a progress bar between the rows."""
    program = "from airflow_provider_chatexport.cli import main; main()"
    query = "SELECT current_setting('enable_progress_bar') AS is_drawn"
    command = [sys.executable, "-c", program, "sql", query, "--csv", "--lake", str(small_lake)]
    assert "is_drawn\nfalse\n" == subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_records_have_a_line_for_each_column(run: Run, small_lake: Path) -> None:
    """A row of fifty columns is read from top to bottom."""
    shown = run("sql", f"{ODD} LIMIT 2", "--records", "--lake", small_lake).out.splitlines()
    assert ["--- row 1", "number   1", 'words    a,"b"', "many     [1, 2]"] == shown[:4]
    assert ["--- row 2", "number   2", "words", "many     NULL"] == shown[6:10]


def test_csv_is_read_back_as_it_was(run: Run, small_lake: Path) -> None:
    """Absent values and empty texts, quotes and line breaks, times and lists: a spreadsheet or DuckDB gets them all."""
    printed = run("sql", ODD, "--csv", "--lake", small_lake).out
    assert [
        "number,words,many,moment,is_true",
        '1,"a,""b""","[1, 2]",2026-01-01T10:00:00.000000Z,true',
        '2,"",,,false',
    ] == printed.splitlines()[:3]
    with duckdb.connect() as con:
        read = con.read_csv(io.StringIO(printed), allow_quoted_nulls=False)
        assert ["BIGINT", "VARCHAR", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "BOOLEAN"] == list(map(str, read.types))
        of_both = "number, words, moment, is_true"
        assert con.sql(ODD).project(of_both).fetchall() == read.project(of_both).fetchall()


def test_ndjson_is_an_object_per_row(run: Run, small_lake: Path) -> None:
    """Values are those of ``--json``. An object would lose one of two columns with one name."""
    lake = ("--lake", small_lake)
    expected = run("sql", ODD, "--json", *lake).json
    printed = [json.loads(each) for each in run("sql", ODD, "--ndjson", *lake).out.splitlines()]
    assert [dict(zip(expected["columns"], row, strict=True)) for row in expected["rows"]] == printed
    assert_one_sentence(run("sql", "SELECT 1 AS a, 2 AS a", "--ndjson", *lake), 2, "several columns 'a'", "with AS")


def test_parquet_keeps_every_type(run: Run, small_lake: Path, tmp_path: Path) -> None:
    """The file is for the next query. It is there whole, or not at all."""
    lake, target = ("--lake", small_lake), tmp_path / "result.parquet"
    assert Ran(0, "", "") == run("sql", ODD, "--parquet", target, *lake)
    with duckdb.connect() as con:
        assert con.sql(ODD).types == con.read_parquet(str(target)).types
        assert con.sql(ODD).fetchall() == con.read_parquet(str(target)).fetchall()
    nowhere = tmp_path / "none" / "result.parquet"
    assert_one_sentence(run("sql", ODD, "--parquet", nowhere, *lake), 2, f"cannot write {nowhere}: No such file")
    failing = "SELECT error(text) FROM messages"
    assert_one_sentence(run("sql", failing, "--parquet", tmp_path / "failed.parquet", *lake), 1, "TRY_CAST")
    assert [target] == [each for each in tmp_path.iterdir() if "parquet" in each.name]


@pytest.mark.parametrize("form", ["--csv", "--ndjson"])
def test_rows_stream(form: str, small_lake: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """The first rows of an endless result are there at once, nothing is collected, and ``| head`` ends it quietly."""
    process = start("sql", "SELECT range AS n FROM range(1000000000000)", form, "--lake", str(small_lake))
    assert process.stdout is not None
    assert {"--csv": ["n", "0"], "--ndjson": ['{"n": 0}', '{"n": 1}']}[form] == [
        process.stdout.readline().strip() for _ in range(2)
    ]
    process.stdout.close()
    assert process.stderr is not None
    assert "" == process.stderr.read()
    assert 1 == process.wait(timeout=60)


def test_a_query_that_fails_halfway_says_so_after_its_rows(run: Run, small_lake: Path) -> None:
    """A stream has no way back. The exit code and the sentence say that it is not whole, and quote no value."""
    # DuckDB runs ahead by 10 MiB, and an error drops them: so there are 40 MB before it.
    row = "CASE WHEN range < 40000 THEN range ELSE error('secret') END AS n, repeat('x', 1000) AS text"
    query = f"SELECT {row} FROM range(50000)"
    ran = run("sql", query, "--csv", "--lake", small_lake)
    assert ran.out.startswith("n,text\n0,xxx")
    assert (1, 1, True) == (ran.code, ran.err.count("\n"), "the query failed on a value" in ran.err)
    assert "secret" not in ran.err


# Where the query comes from


def test_a_query_comes_from_a_file_or_from_stdin(
    run: Run, small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long queries are kept in files, with comments and a semicolon at the end."""
    file = tmp_path / "query.sql"
    file.write_text("-- how many\nSELECT count(*) AS n, '\u00e9;' AS text\nFROM messages; -- all of them\n")
    lake, expected = ("--lake", small_lake), "n,text\n1,\u00e9;\n"
    assert expected == run("sql", "-f", file, "--csv", *lake).out
    assert [[1, "\u00e9;"]] == run("sql", file.read_text(), "--json", *lake).json["rows"]
    for arguments in (["-"], ["-f", "-"]):
        with file.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert expected == run("sql", *arguments, "--csv", *lake).out


def test_a_call_without_one_query_and_one_format_is_refused(run: Run, small_lake: Path, tmp_path: Path) -> None:
    """Nothing that was typed is left unused, and no option becomes a part of the query."""
    lake = ("--lake", small_lake)
    assert_one_sentence(run("sql", *lake), 2, "give one query")
    assert_one_sentence(run("sql", "FROM loads", "-f", "x", *lake), 2, "give one query")
    assert_one_sentence(run("sql", "FROM loads", "--csv", "--json", *lake), 2, "--csv and --json are given; give one")
    assert_one_sentence(run("sql", "--cvs", "FROM loads", *lake), 2, "No such option '--cvs'. Did you mean '--csv'?")
    assert_one_sentence(run("sql", "FROM", "loads", *lake), 2, "unexpected extra argument (loads)")
    assert_one_sentence(run("sql", "-f", tmp_path / "none", *lake), 2, "none: No such file or directory; name a file")
    (tmp_path / "binary").write_bytes(b"\xff")
    assert_one_sentence(run("sql", "-f", tmp_path / "binary", *lake), 2, "not UTF-8")


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("FROM mesages", 'Did you mean "messages"?'),
        ("SELECT tex FROM messages", 'Candidate bindings: "text", '),
        ("SELECT\n1,\nFROM WHERE", '"WHERE" (line 3)'),
        ("FROM thread()", "Candidate macros: thread(message_id)"),
        ("SELECT text + 1 FROM messages", " and 41 more"),
    ],
)
def test_what_duckdb_suggests_is_in_the_error(query: str, hint: str, run: Run, small_lake: Path) -> None:
    """The sentence of DuckDB about a mistyped name contains the right one, and of a long query the line."""
    assert_one_sentence(run("sql", query, "--lake", small_lake), 2, "the query is wrong: ", hint)


# tables


def test_tables_lists_the_views_and_the_columns_of_one(run: Run, small_lake: Path) -> None:
    """Names, types and descriptions are at hand where the query is typed."""
    lake = ("--lake", small_lake)
    page = run("tables", *lake).out
    assert "messages_history" in page
    assert "activity(channel, since, until)" in page
    assert "_internal" not in page
    of_one = run("tables", "messages", *lake).out
    assert of_one.startswith(f"messages: {MESSAGES.doc}\n")
    for column in MESSAGES:
        assert re.search(rf"^{column.name} +{re.escape(column.kind.value)} ", of_one, re.MULTILINE)
    wrong = run("tables", "mesages", *lake)
    assert_one_sentence(wrong, 2, "there is no view 'mesages'. Did you mean 'messages'")


def test_tables_are_json_for_tools(run: Run, small_lake: Path) -> None:
    """An editor or a catalog of data takes names, types and descriptions from it."""
    value = run("tables", "--json", "--lake", small_lake).json
    assert {each.name for each in MACROS} == {each["name"] for each in value["macros"]}
    (messages,) = (each for each in value["views"] if each["name"] == "messages")
    expected = [{"name": each.name, "type": each.kind.value, "doc": each.doc} for each in MESSAGES]
    assert expected == messages["columns"][: len(expected)]
    assert [messages] == run("tables", "messages", "--json", "--lake", small_lake).json["views"]
