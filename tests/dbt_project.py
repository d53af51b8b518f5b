"""A dbt project, and dbt itself to build it."""

from __future__ import annotations

import functools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from forks import Forks

DBT = Path(__file__).parents[1] / ".venv-dbt" / "bin" / "dbt"


@functools.cache
def _forks() -> Forks:
    """Return the process that runs dbt. It ends when it can read no more, which is at the end of the tests."""
    assert DBT.exists(), "dbt's environment is missing; run `make .venv-dbt/.ready`"
    return Forks(Path(__file__).with_name("forked_dbt.py"), DBT.with_name("python"))


@dataclass(frozen=True, slots=True)
class Project:
    """A dbt project in a folder.

    :param environment: all variables of the dbt process, except HOME.
    """

    folder: Path
    environment: dict[str, str]

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        output = self.folder.parent / "dbt-output"
        environment = json.dumps({"HOME": str(self.folder), **self.environment})
        typed = ["--no-use-colors", *arguments]
        code = _forks().run(output, str(self.folder), environment, *typed)
        return subprocess.CompletedProcess(typed, code, output.read_text())

    def build(self, *arguments: str) -> dict[str, str]:
        """Build all; return what became of each node, by name."""
        done = self.dbt("build", *arguments)
        assert done.returncode == 0, done.stdout
        return {result["unique_id"]: result["status"] for result in self.target("run_results.json")["results"]}

    def target(self, name: str) -> Any:
        return json.loads((self.folder / "target" / name).read_bytes())

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the database that dbt built, without the lake."""
        with duckdb.connect(str(self.folder / "chat.duckdb"), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            return con.sql(statement).fetchall()

    def change(self, statement: str) -> None:
        with duckdb.connect(str(self.folder / "chat.duckdb")) as con:
            con.execute(statement)
