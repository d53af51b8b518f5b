"""What Airflow's list of DAGs shows of the examples."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from airflow_provider_chatexport.operators.params import window_params

DAGS = sorted((Path(__file__).parents[2] / "dags").glob("*.py"))


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.stem)
def test_every_example_says_what_it_does_and_retries(path: Path) -> None:
    """A reader of the UI has no file to look into. A service that is down for a minute must not fail a run."""
    dag = runpy.run_path(str(path))["dag"]
    assert path.stem == dag.dag_id
    assert dag.description
    assert dag.doc_md.startswith(("Load", "Export", "Run"))
    assert {3} == {task.retries for task in dag.tasks}


def test_a_form_speaks_of_a_schedule_only_where_there_is_one() -> None:
    """Regression: the form of the backfill offered the window of a schedule, and the run was then refused."""
    params = runpy.run_path(str(DAGS[0].with_name("chatexport_backfill.py")))["dag"].params
    assert {"since", "until"} == {*params}
    for name in params:
        param = params.get_param(name)
        assert "schedule" not in param.description
        with pytest.raises(Exception, match="No value passed"):
            param.resolve()
    assert "schedule" in window_params()["since"].description
