"""The truth rule on real lakes: readers always see what the newest export of each moment says.

Exports, loads, compactions, removals and clean-ups run in any order, and a model says what readers should see.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import s3_server
from effort import examples
from export_objects import channel, line, message, reaction, write_lines
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from lakes import LakeProbe

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.progress import silent
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.catalog.refresh import refresh
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.auto_compact import compact_behind
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.forget import forget_user
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.maintenance.verify import verify
from airflow_provider_chatexport.lake.publish.plan import unfit
from airflow_provider_chatexport.lake.publish.settle import settle
from airflow_provider_chatexport.lake.storage.address import open_store

BEGIN = datetime(2026, 1, 1, 18, tzinfo=UTC)  # so that windows cross a midnight
HOURS = 12
EXPORTED = datetime(2026, 1, 10, tzinfo=UTC)
CIDS = ("a:1", "b:2")


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as the service knows it at some moment."""

    id: str
    cid: str
    hour: int
    text: str
    deleted: bool = False
    reacted: bool = False
    user: str = "u1"

    @property
    def created_at(self) -> datetime:
        """The full hour, which is the edge of a window."""
        return BEGIN + timedelta(hours=self.hour)


@dataclass(frozen=True, slots=True)
class Export:
    """One export: every message of some channels in a window, as the service knew it at that moment."""

    number: int
    cids: tuple[str, ...]
    since: int
    until: int
    found: tuple[Sent, ...]

    @property
    def exported_at(self) -> datetime:
        return EXPORTED + timedelta(minutes=self.number)

    def covers(self, cid: str, hour: int) -> bool:
        return cid in self.cids and self.since <= hour < self.until

    def write(self, folder: Path) -> Path:
        lines = [line("channel", channel(cid)) for cid in self.cids]
        for each in self.found:
            fields = {
                "cid": each.cid,
                "user": {"id": each.user},
                "created_at": each.created_at.isoformat(),
                "updated_at": each.created_at.isoformat(),
                "text": each.text,
            }
            if each.deleted:
                fields |= {"type": "deleted", "deleted_at": self.exported_at.isoformat()}
            lines.append(line("message", message(each.id, **fields)))
            if each.reacted:
                lines.append(line("reaction", reaction(each.id, cid=each.cid)))
        return write_lines(folder / f"export-{self.number}", lines)


hours = st.integers(0, HOURS - 1)
spans = hours.flatmap(lambda since: st.tuples(st.just(since), st.integers(since + 1, HOURS)))
some_cids = st.sampled_from([CIDS[:1], CIDS[1:], CIDS])


class Service(RuleBasedStateMachine):
    """A service whose history changes, exports of it, and a lake that they are loaded into."""

    waiting = Bundle("waiting")

    def new_lake(self) -> str:
        return str(self.folder / "lake")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="truth-"))
        self.lake = LakeProbe(self.new_lake())
        self.store = open_store(self.lake.uri)
        self.sent: dict[str, Sent] = {}
        self.exports: list[Export] = []
        self.loaded: list[Export] = []
        self.forgotten: set[str] = set()
        self.n = 0
        for hour in (0, 3, 6, 9):
            for cid in CIDS:
                self.send(cid, hour)

    @rule(cid=st.sampled_from(CIDS), hour=hours)
    def send(self, cid: str, hour: int) -> None:
        self.n += 1
        self.sent[f"m{self.n}"] = Sent(f"m{self.n}", cid, hour, "first", user=f"person-{self.n % 5}")

    @rule(change=st.sampled_from(["edit", "delete", "hard-delete", "react"]), at=st.integers(0, 99))
    def change(self, change: str, at: int) -> None:
        if not self.sent:
            return
        each = self.sent[sorted(self.sent)[at % len(self.sent)]]
        self.n += 1
        if change == "hard-delete":
            del self.sent[each.id]
        else:
            self.sent[each.id] = Sent(
                each.id,
                each.cid,
                each.hour,
                f"edit {self.n}" if change == "edit" else each.text,
                each.deleted or change == "delete",
                each.reacted or change == "react",
                each.user,
            )

    @rule(cid=st.sampled_from(CIDS), hour=hours)
    def truncate(self, cid: str, hour: int) -> None:
        self.sent = {key: each for key, each in self.sent.items() if each.cid != cid or each.hour > hour}

    @rule(target=waiting, cids=some_cids, span=spans)
    def export(self, cids: tuple[str, ...], span: tuple[int, int]) -> Export:
        found = tuple(each for each in self.sent.values() if each.cid in cids and span[0] <= each.hour < span[1])
        self.exports.append(Export(len(self.exports), cids, *span, found))
        return self.exports[-1]

    @rule(target=waiting, export=consumes(waiting), keep=st.booleans(), again=st.booleans())
    def load(self, export: Export, keep: bool, again: bool) -> object:
        """Load exports in any order, and some of them twice."""
        report = load_files(
            [export.write(self.folder)],
            lake_uri=self.lake.uri,
            window=Window(since=BEGIN + timedelta(hours=export.since), until=BEGIN + timedelta(hours=export.until)),
            exported_at=export.exported_at,
            options=LoadOptions(accept_shrink=True, keep_superseded=keep),
        )
        assert report.already_loaded == (export in self.loaded)
        self.loaded.append(export)
        return multiple(export) if again else multiple()

    @rule(cids=some_cids, span=spans, keep=st.booleans())
    def export_and_load(self, cids: tuple[str, ...], span: tuple[int, int], keep: bool) -> None:
        """Do what a schedule does. The bundle above is for exports that arrive late or twice."""
        self.load(self.export(cids, span), keep, again=False)

    @precondition(lambda self: self.loaded)
    @rule()
    def compact(self) -> None:
        compact(self.store)
        self.lake.assert_glob_equals_view()

    @precondition(lambda self: self.loaded)
    @rule()
    def settle(self) -> None:
        """Rewrite what cannot be published, as a publication does first."""
        snapshot, _ = settle(self.store, losses=Losses(self.store), work_dir=None, progress=silent)
        assert [] == list(unfit(snapshot))
        self.lake.assert_glob_equals_view()

    @precondition(lambda self: len(self.loaded) > 2)
    @rule(window_is_behind=st.booleans())
    def compact_behind(self, window_is_behind: bool) -> None:
        """Merge some records, as a load does with those behind it. Here newer exports may hide parts of them, too."""
        load = max((each for each in self.lake.snapshot().records if each.is_load), key=lambda each: each.committed_at)
        compact_behind(self.store, replace(load, coverage=(), files=()) if window_is_behind else load, least_records=2)
        refresh(self.store)

    @precondition(lambda self: len(self.loaded) > 2)
    @rule(user=st.sampled_from(["person-1", "person-3"]))
    def forget(self, user: str) -> None:
        """Remove a person, whether the lake knows them or not. No later load may bring them back."""
        forget_user(self.store, user, now=datetime.now(UTC), even_if_unknown=True)
        self.forgotten.add(user)

    @precondition(lambda self: self.loaded)
    @rule(history=st.booleans())
    def vacuum(self, history: bool) -> None:
        vacuum(self.store, keep=timedelta(0), now=datetime.now(UTC), history=history)

    @invariant()
    def the_lake_shows_what_the_newest_exports_said(self) -> None:
        if not self.loaded:
            return
        expected = {}
        for cid in CIDS:
            for hour in range(HOURS):
                knowing = [export for export in self.loaded if export.covers(cid, hour)]
                if knowing:
                    newest = max(knowing, key=lambda export: export.number)
                    expected |= {
                        each.id: [each.text, each.deleted, each.reacted]
                        for each in newest.found
                        if each.cid == cid and each.hour == hour and each.user not in self.forgotten
                    }
        shown = self.lake.rows(
            "SELECT id, text, deleted_at IS NOT NULL, EXISTS (FROM reactions WHERE message_id = messages.id) "
            "FROM messages"
        )
        assert len(shown) == len({row[0] for row in shown})
        assert expected == {row[0]: row[1:] for row in shown}

    def teardown(self) -> None:
        if getattr(self, "loaded", None):
            self.lake.assert_tidy()
            faults = [each for each in verify(self.store, now=datetime.now(UTC)).findings if each.kind != "gap"]
            assert [] == [each for each in faults if each.is_fault]
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestService = pytest.mark.timeout(1800)(Service.TestCase)
TestService.settings = settings(
    max_examples=examples(6), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


class ServiceOverS3(Service):
    """The same, with the lake in a bucket."""

    def new_lake(self) -> str:
        return s3_server.new_lake()


TestServiceOverS3 = pytest.mark.timeout(1800)(pytest.mark.usefixtures("s3")(ServiceOverS3.TestCase))
TestServiceOverS3.settings = settings(
    max_examples=examples(2), stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
