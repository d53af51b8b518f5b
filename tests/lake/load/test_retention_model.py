"""An archive outlives retention policies: a model of a service that deletes, and a lake that keeps.

Policies change and delete, people write, edit and delete, exports of any window are loaded in any order and twice, and
the lake is compacted and cleaned up. An archived message goes only if a person deleted it, and an export that knew all
of its time did not have it any more.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from effort import examples
from export_objects import channel, line, message, write_lines
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lakes import LakeProbe

from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.retention import MARGIN, Retention
from airflow_provider_chatexport.core.window import Window
from airflow_provider_chatexport.lake.load.job import load_files
from airflow_provider_chatexport.lake.maintenance.compact import compact
from airflow_provider_chatexport.lake.maintenance.vacuum import vacuum
from airflow_provider_chatexport.lake.storage.address import open_store

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CIDS = ("a:1", "b:2")
AGES = (24, 48, 96)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as the service knows it at some moment."""

    id: str
    cid: str
    created_at: datetime
    text: str = "first"


@dataclass(frozen=True, slots=True)
class Export:
    """One export, and what the service said of its policies when it was submitted."""

    exported_at: datetime
    cids: tuple[str, ...]
    window: Window
    found: dict[str, Sent] = field(hash=False)
    retention: Retention

    def write(self, folder: Path) -> Path:
        lines = [line("channel", channel(cid)) for cid in self.cids]
        for each in self.found.values():
            at = each.created_at.isoformat()
            lines.append(line("message", message(each.id, cid=each.cid, text=each.text, created_at=at, updated_at=at)))
        return write_lines(folder / f"export-{self.exported_at.timestamp()}", lines)


class Archive(RuleBasedStateMachine):
    """A service that deletes by policy, and a lake that exports of it are loaded into."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="retention-"))
        self.lake = LakeProbe(str(self.folder / "lake"))
        self.store = open_store(self.lake.uri)
        self.now = START
        self.age_hours: int | None = None
        self.sent: dict[str, Sent] = {}
        self.deleted_by_people: dict[str, datetime] = {}
        self.waiting: list[Export] = []
        self.loaded: list[Export] = []
        self.changed = False
        for hours in (0, 12, 12, 12, 12):
            self.live(hours)

    # What the service does

    @rule(hours=st.sampled_from([1, 6, 12, 24, 48]))
    def live(self, hours: int) -> None:
        """Let time pass, and people write at its end."""
        self.now += hours * HOUR
        for cid in CIDS:
            each = Sent(f"m{len(self.sent) + len(self.deleted_by_people)}-{self.now.timestamp():.0f}", cid, self.now)
            self.sent[each.id] = each

    @rule(at=st.integers(0, 99))
    def edit(self, at: int) -> None:
        if self.sent:
            each = self.sent[sorted(self.sent)[at % len(self.sent)]]
            self.sent[each.id] = replace(each, text=f"edited {self.now}")

    @rule(at=st.integers(0, 99))
    def delete(self, at: int) -> None:
        if self.sent:
            each = self.sent.pop(sorted(self.sent)[at % len(self.sent)])
            self.deleted_by_people[each.id] = self.now

    @precondition(lambda self: self.age_hours is not None)
    @rule(share=st.sampled_from([1, 1, 2]))
    def sweep(self, share: int) -> None:
        """Delete by the policy: all that it covers, or some of it, since cleaning takes days."""
        old = [each for each in self.sent.values() if self.now - each.created_at > self.age_hours * HOUR]
        for each in old[::share]:
            del self.sent[each.id]

    @rule(age_hours=st.sampled_from([None, *AGES]), hours=st.sampled_from([0, 2, 24]))
    def change_policy(self, age_hours: int | None, hours: int) -> None:
        """Change the policy. The lake has asked for the old one before, which went on for a while."""
        if self.age_hours is not None:
            self.load_now(CIDS, since_hours=1, until_hours=0)
            self.now += hours * HOUR
            self.sweep(share=1)
        self.age_hours = age_hours

    # What people do with it

    def export(self, cids: tuple[str, ...], since_hours: int, until_hours: int) -> Export:
        """Export a window that lies so many hours back."""
        self.now += timedelta(minutes=1)
        window = Window(since=self.now - since_hours * HOUR, until=self.now - until_hours * HOUR)
        found = {each.id: each for each in self.sent.values() if each.cid in cids and each.created_at in window}
        return Export(self.now, cids, window, found, Retention(max_age_hours=self.age_hours))

    def load(self, export: Export) -> None:
        before = set(self.lake.texts()) if self.loaded else set()
        report = load_files(
            [export.write(self.folder)],
            lake_uri=self.lake.uri,
            window=export.window,
            exported_at=export.exported_at,
            options=LoadOptions(accept_shrink=True, retention=export.retention),
        )
        is_new = export not in self.loaded
        assert is_new is not report.already_loaded
        if is_new:
            self.loaded.append(export)
            assert len(before - set(self.lake.texts())) == report.vanished.n_messages
        self.changed = True

    @rule(
        cids=st.sampled_from([CIDS[:1], CIDS]),
        since_hours=st.sampled_from([6, 24, 36, 72, 200]),
        until_hours=st.sampled_from([0, 0, 20, 60]),
    )
    def load_now(self, cids: tuple[str, ...], since_hours: int, until_hours: int) -> None:
        """Export and load, as a schedule with a lookback does, or a backfill."""
        if since_hours > until_hours:
            self.load(self.export(cids, since_hours, until_hours))

    @rule(cids=st.sampled_from([CIDS[:1], CIDS]), since_hours=st.sampled_from([6, 36, 200]))
    def export_for_later(self, cids: tuple[str, ...], since_hours: int) -> None:
        self.waiting.append(self.export(cids, since_hours, 0))

    @precondition(lambda self: self.waiting)
    @rule(at=st.integers(0, 9), again=st.booleans())
    def load_late(self, at: int, again: bool) -> None:
        """Load exports in any order, and some of them twice."""
        export = self.waiting[at % len(self.waiting)]
        self.load(export)
        if not again:
            self.waiting.remove(export)

    @precondition(lambda self: self.loaded)
    @rule(keep_dead_files=st.booleans())
    def compact(self, keep_dead_files: bool) -> None:
        compact(self.store)
        if not keep_dead_files:
            vacuum(self.store, keep=timedelta(0), now=datetime.now(UTC))
        self.lake.assert_glob_equals_view()
        self.changed = True

    # What must hold

    def claims(self, export: Export, sent: Sent) -> bool:
        """Return whether an export knows all of the moment of a message, by the policy of its time alone."""
        hours = export.retention.max_age_hours
        horizon = START if hours is None else export.exported_at - hours * HOUR + MARGIN
        return sent.cid in export.cids and sent.created_at in export.window and sent.created_at >= horizon

    @invariant()
    def an_archived_message_goes_only_if_a_person_deleted_it(self) -> None:
        if not self.changed:
            return
        self.changed = False
        shown = self.lake.texts()
        newest: dict[str, Export] = {}
        for export in sorted(self.loaded, key=lambda each: each.exported_at):
            newest |= dict.fromkeys(export.found, export)
        for message_id, last in newest.items():
            sent = last.found[message_id]
            # Exports that say that the message is gone.
            gone = [each for each in self.loaded if each.exported_at > last.exported_at and self.claims(each, sent)]
            deleted_at = self.deleted_by_people.get(message_id)
            if message_id in shown:
                assert sent.text == shown[message_id]
            else:
                assert deleted_at is not None, "a policy took an archived message"
                assert any(deleted_at < each.exported_at for each in gone), "no export has seen the deletion"
        assert shown.keys() <= newest.keys()
        assert len(shown) == self.lake.value("SELECT count(*) FROM messages")

    def teardown(self) -> None:
        if getattr(self, "loaded", None):
            self.lake.assert_tidy()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestArchive = pytest.mark.timeout(1800)(Archive.TestCase)
TestArchive.settings = settings(
    max_examples=examples(4), stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
