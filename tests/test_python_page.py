"""Every snippet of docs/python.md runs in the environment that the page names."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from export_objects import channel, line, message, write_lines
from pages import blocks, commands
from s3_server import BUCKET, S3Server, new_lake
from wheels import Installed

from airflow_provider_chatexport.lake import Lake

ROOT = Path(__file__).resolve().parents[1]
READER = ROOT / ".venv-readers" / "bin" / "python"
CID = "livestream:ubuntu"

LOCAL, S3, FRAMES, IBIS, SUPERSET, PACKAGE = (block.text for block in blocks("docs/python.md", language="python"))
(ATTACH,) = (block.text for block in blocks("docs/object-storage.md", language="sql"))
(LOAD,) = (each.text for each in commands("docs/object-storage.md") if each.program == "chatexport")


def run(python: str | Path, code: str, home: Path) -> str:
    """Return what the code prints; it runs in ``home``, in New York, and with nothing else in its environment."""
    environment = {"HOME": str(home), "TZ": "America/New_York", "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([python, "-c", code], cwd=home, env=environment, check=False, capture_output=True, text=True)
    assert 0 == ran.returncode, ran.stderr
    return ran.stdout


def export(path: Path) -> Path:
    """Write two messages of one UTC day, of which one is of the day before in New York, and one of the next day."""
    times = ("2025-01-06T12:00:00Z", "2025-01-06T01:00:00Z", "2025-01-07T12:00:00Z")
    rows = [message(f"m{number}", cid=CID, created_at=at) for number, at in enumerate(times)]
    return write_lines(path, [line("channel", channel(CID)), *(line("message", row) for row in rows)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a lake in it."""
    assert READER.exists(), "the reader's environment is missing; run `make .venv-readers/.ready`"
    home = tmp_path_factory.mktemp("home")
    Lake(home / "lake").load(export(home / "export"))
    return home


def counted(printed: str) -> list[tuple[str, int]]:
    return [(day, int(n)) for day, n in re.findall(r"(2025-\d\d-\d\d)\S* +(\d+)", printed)]


DAYS = [("2025-01-06", 2), ("2025-01-07", 1)]


@pytest.mark.parametrize("python", [sys.executable, READER], ids=["DuckDB 2", "DuckDB 1.5"])
def test_five_lines_read_a_local_lake(python: str, home: Path) -> None:
    """The page begins with them; a reader has DuckDB and pandas, and no more."""
    assert LOCAL.count("\n") <= 6
    assert DAYS == counted(run(python, LOCAL, home))


def test_five_lines_read_a_lake_on_s3(s3: S3Server, installed: Installed, tmp_path: Path) -> None:
    """As they stand, but for keys and address, like the SQL for DuckDB's shell. The page on object storage loads it."""
    assert S3.count("\n") <= 6
    uri = new_lake()
    content = export(tmp_path / "export").read_bytes()
    (tmp_path / "export.ndjson.gz").write_bytes(gzip.compress(content))
    load = shlex.split(LOAD.replace("s3://chat/lake", uri))
    subprocess.run([installed.chatexport, *load[1:]], cwd=tmp_path, check=True, capture_output=True)
    # As if DuckDB had downloaded it.
    install = (
        "import duckdb, duckdb_extension_httpfs, pathlib, shutil\n"
        "(found,) = pathlib.Path(duckdb_extension_httpfs.__file__).parent.rglob('*.duckdb_extension')\n"
        "(platform,) = duckdb.sql('PRAGMA platform').fetchone()\n"
        "(version,) = duckdb.sql('SELECT version()').fetchone()\n"
        "target = pathlib.Path.home() / '.duckdb' / 'extensions' / version / platform\n"
        "target.mkdir(parents=True)\n"
        "shutil.copy(found, target)\n"
    )
    run(READER, install, tmp_path)
    secret = (
        f"KEY_ID '{s3.storage_options['key']}', SECRET '{s3.storage_options['secret']}', "
        f"ENDPOINT '127.0.0.1:{s3.port}', URL_STYLE 'path', USE_SSL false, "
    )

    def with_secret(code: str) -> str:
        assert code.count("KEY_ID '...', SECRET '...', ") == 1
        return code.replace("KEY_ID '...', SECRET '...', ", secret).replace("s3://chat/lake", uri)

    assert BUCKET in uri
    assert DAYS == counted(run(READER, with_secret(S3), tmp_path))
    in_shell = f"import duckdb\nprint(duckdb.sql({with_secret(ATTACH)!r}).fetchall())"
    assert f"[('{CID}', 3)]" in run(READER, in_shell, tmp_path)


def test_frames_of_every_kind(home: Path) -> None:
    """Each line works after the five of the local lake, and a frame joins with the lake again."""
    printed = run(READER, f"{LOCAL}{FRAMES}\nprint(len(frame), table.num_rows, sorted(per_day.fetchall()))", home)
    assert "3\n3 3 [(datetime.date(2025, 1, 6), 2), (datetime.date(2025, 1, 7), 1)]" in printed


def test_ibis_and_superset(home: Path) -> None:
    """They reach the lake through drivers of their own, which may be of an older DuckDB."""
    assert DAYS == counted(run(READER, IBIS, home))
    assert f"[('{CID}', 3)]" in run(READER, SUPERSET.replace("/data/lake", str(home / "lake")), home)


def test_the_lake_of_this_package(home: Path, installed: Installed) -> None:
    """The same in the words of this package."""
    printed = run(installed.python, PACKAGE, home)
    assert DAYS == counted(printed.partition("Coverage")[0])[:2]
    assert CID in printed
