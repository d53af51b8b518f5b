"""Runs dbt in forks of a process that has imported it: importing it takes as long as a small build.

FOLDER ENVIRONMENT ARGUMENT...    arguments of a fork: the working folder, all variables as JSON, and dbt's own
"""

from __future__ import annotations

import json
import os
import sys

# All that a command of dbt imports when it runs.
import dbt.adapters.duckdb  # noqa: F401
from dbt.cli.main import cli
from dbt.task import build, deps, freshness  # noqa: F401
from dbt.task.docs import generate  # noqa: F401
from forks import serve


def attempt(arguments: list[str]) -> None:
    folder, environment, *typed = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(json.loads(environment))
    sys.argv = ["dbt", *typed]
    cli()


if __name__ == "__main__":
    serve(attempt)
