"""Queries of the keys that a file has: they give the rows that queries of all keys would give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_chatexport.core.entities import Entity
from airflow_provider_chatexport.lake.normalize.custom_keys import CustomKeys
from airflow_provider_chatexport.lake.normalize.output import EntityFile
from airflow_provider_chatexport.lake.schema.narrowing import narrowed
from airflow_provider_chatexport.lake.schema.tables import TABLE_BY_ENTITY
from airflow_provider_chatexport.lake.schema.types import Table
from airflow_provider_chatexport.lake.staging import queries

REQUIRED = {"id": "x1", "message_id": "m1", "user_id": "u1", "cid": "team:a", "type": "regular"}
REQUIRED_TIME = {"created_at": "2025-01-01T00:00:00Z"}
VALUES: list[Any] = [
    *(None, "", "text", "u1", "2025-01-02T03:04:05Z", 7, True, [], {}),
    *({"id": "u2", "name": "Ann"}, ["u1", "u3"], [{"id": "u4"}], {"like": {"count": 2, "sum_scores": 3}}),
]


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("entity", Entity)
def test_keys_that_no_object_has_can_be_left_out_of_the_query(entity: Entity, half: int, tmp_path: Path) -> None:
    """A column that is left out by mistake would be null in all small loads."""
    table = TABLE_BY_ENTITY[entity]
    required = {key: value for key, value in (REQUIRED | REQUIRED_TIME).items() if key in table.fields}
    keys = [key for key in table.known_keys[half::2] if key not in required]
    objects = [required, *(required | {key: value} for key in keys for value in VALUES)]
    path = tmp_path / "objects.ndjson"
    path.write_text("".join(json.dumps({"n": n, "data": data}) + "\n" for n, data in enumerate(objects)))
    met = frozenset({*required, *keys})
    assert _rows(table, table, path, met) == _rows(table, narrowed(table, met), path, met)


def _rows(table: Table, read: Table, path: Path, met: frozenset[str]) -> list[tuple[Any, ...]]:
    """Return the rows of the stage table, read with the columns of ``read``."""
    assert table.entity is not None
    file = EntityFile(entity=table.entity, path=path, nulls=path, n_objects=0)
    objects = queries.read_as_struct(read, file, CustomKeys(names=(), with_null=False, known=met))
    with duckdb.connect(config={"autoload_known_extensions": False}) as con:
        con.execute(queries.create_stage(table))
        con.execute(f"""
INSERT INTO stage_{table.name} BY NAME
SELECT {queries.columns(read)}, n AS _n, _cast_failures, {queries.complete(read)} AS _complete,
    {queries.embeds_users(read)} AS _embeds_users
FROM ({objects})
""")
        rows = con.sql(f"SELECT * REPLACE (_cast_failures IS NOT NULL AS _cast_failures) FROM stage_{table.name}")
        return [tuple(map(str, row)) for row in rows.order("_n").fetchall()]
