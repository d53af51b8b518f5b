"""What is made from the records: the tables' folders, the catalog, the checkpoint. Brought up to them after a commit.

None of it is needed for the lake to be right: whoever died before getting here left a committed load behind, and the
next one to come by shows it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from airflow_provider_chatexport.lake import catalog, folders, loads
from airflow_provider_chatexport.lake.loads import LoadRecord
from airflow_provider_chatexport.lake.state import LakeState
from airflow_provider_chatexport.lake.store import LakeStore
from airflow_provider_chatexport.lake.sweep import DEFAULT_KEEP, sweep

# So many records are read one by one before the checkpoint is written anew: writing it costs as much as reading it all.
CHECKPOINT_EVERY: Final = 50


def settle(store: LakeStore, *, thoroughly: bool = False) -> LakeState:
    """Brings folders, catalog and checkpoint up to the records; the state that they show.

    Two loads may finish at once. Each looks at the records again afterwards, so the last one has seen them all.

    :param thoroughly: look at every folder, rather than at those that records outside the checkpoint touch, and make
        the catalog from nothing.
    :raises LakeError: the lake cannot be read or written.
    """
    catalog.publish_anchors(store)
    # Read once: another process may write it between two rounds, and what is not in it has to be looked at in each.
    known = loads.read_checkpoint(store, loads.names(store))

    def show() -> LakeState:
        state = LakeState(loads.all_loads(store, known=known))
        folders.bring_up(store, state, None if thoroughly else _fresh(state, known))
        catalog.publish(store, state, anew=thoroughly)
        return state

    while True:
        before = loads.names(store)
        state = loads.on_latest(store, show)
        if loads.names(store) == before:
            break
    if len(_fresh(state, known)) >= CHECKPOINT_EVERY:
        loads.write_checkpoint(store, state.records)
        sweep(store, state, before=datetime.now(UTC) - DEFAULT_KEEP)
    return state


def _fresh(state: LakeState, known: Collection[str]) -> list[LoadRecord]:
    """The records that are not in the checkpoint."""
    return [record for record in state.records if record.path not in known]
