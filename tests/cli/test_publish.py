"""``chatexport publish``, and ``--sink`` of the commands that load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import deltalake
import pytest
from command_line import Run, assert_one_sentence
from lakes import write_export

WITHOUT_DELTALAKE = (
    "import sys; sys.modules['deltalake'] = None; from airflow_provider_chatexport.cli import main; main(sys.argv[1:])"
)


@pytest.fixture
def export_file(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export", {"a": (8, "a1"), "b": (9, "b1")})


def test_a_load_with_a_sink_publishes_and_another_publication_has_nothing_to_do(
    run: Run, export_file: Path, tmp_path: Path
) -> None:
    """One command loads and publishes; the same tables are then those of ``chatexport publish``."""
    lake = tmp_path / "lake"
    loaded = run("load", export_file, "--lake", lake, "--sink", "delta", "--json").json
    tables = {each["table"]: each for each in loaded["published"]["tables"]}
    assert (2, True) == (tables["messages"]["rows"], loaded["published"]["changed"])
    assert f"{lake}/_files/messages" == tables["messages"]["place"]
    assert 2 == deltalake.DeltaTable(tables["messages"]["place"]).count()
    again = run("publish", "--delta", "--lake", lake)
    assert (0, "") == (again.code, again.err)
    assert "nothing to do: the lake is already published as delta" in again.out
    (report,) = run("publish", "--delta", "--lake", lake, "--json").json["published"]
    assert (False, 0) == (report["changed"], report["rewritten"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "there is no format to publish in; give --delta or --iceberg"),
        (["--delta", "--catalog", "prod"], "--catalog is for --iceberg"),
    ],
)
def test_a_call_that_is_not_clear_is_refused(run: Run, tmp_path: Path, options: list[str], sentence: str) -> None:
    assert_one_sentence(run("publish", *options, "--lake", tmp_path / "lake"), 2, sentence)


def test_there_has_to_be_a_lake(run: Run, tmp_path: Path) -> None:
    assert_one_sentence(run("publish", "--delta", "--lake", tmp_path / "none"), 1, "there is no lake at")
    assert not (tmp_path / "none").exists()


def test_a_missing_library_is_one_sentence_before_anything_is_loaded(export_file: Path, tmp_path: Path) -> None:
    """The sentence has the command that installs it, and no load is committed that is then not published."""
    typed = ["load", str(export_file), "--lake", str(tmp_path / "lake"), "--sink", "delta"]
    ran = subprocess.run([sys.executable, "-c", WITHOUT_DELTALAKE, *typed], capture_output=True, text=True, check=False)
    sentence = "publishing as Delta needs deltalake; run pip install 'airflow-provider-chatexport[delta]'"
    assert (2, f"chatexport: {sentence}\n") == (ran.returncode, ran.stderr)
    assert not (tmp_path / "lake").exists()
