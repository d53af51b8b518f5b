"""A dbt project, and dbt itself to build it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

DBT = Path(__file__).parents[1] / ".venv-dbt" / "bin" / "dbt"


@dataclass(frozen=True, slots=True)
class Project:
    """A dbt project in a folder.

    :param environment: all variables of the dbt process, except HOME.
    """

    folder: Path
    environment: dict[str, str]

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert DBT.exists(), "dbt's environment is missing; run `make .venv-dbt/.ready`"
        return subprocess.run(
            [DBT, "--no-use-colors", *arguments],
            cwd=self.folder,
            env={"HOME": str(self.folder), **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

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
