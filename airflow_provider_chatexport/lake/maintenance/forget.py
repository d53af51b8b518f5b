"""Removing people from every file of a lake, and keeping them out.

1. The person's hash goes on the suppression list. From then on, no load brings them in.
2. Their names are looked up, and go on the list as hashes.
3. Every file that names them is rewritten without them, and so are files of history.
4. Tables of other formats are published again, so that they no longer name the old files.
5. The old files are deleted at once, although a reader may have a catalog open that names them.
6. What broken-off work left behind is deleted, as ``vacuum`` does it.
7. The lake remembers which loads were searched (``suppression_list.unchecked``).

If the process dies on the way, running it again continues from there. If a load dies between its record and its last
look at the list, the next load or maintenance finds it among the unchecked ones (``finish_removals``).
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from airflow_provider_chatexport.core.progress import Progress, silent
from airflow_provider_chatexport.errors import CallError, LakeError, UnknownUserError
from airflow_provider_chatexport.lake.catalog import catalog_file
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits.losses import Losses
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.maintenance.lake_search import relations, search
from airflow_provider_chatexport.lake.maintenance.removal import ForgetReport, Removal, loads_of
from airflow_provider_chatexport.lake.privacy import suppression_list
from airflow_provider_chatexport.lake.privacy.listed import named_in_texts, people_of
from airflow_provider_chatexport.lake.privacy.people import Person, has_id, has_like_id
from airflow_provider_chatexport.lake.privacy.pseudonyms import pseudonym
from airflow_provider_chatexport.lake.privacy.redaction import Redactor
from airflow_provider_chatexport.lake.privacy.suppression_list import SuppressionList
from airflow_provider_chatexport.lake.schema.tables import TABLES
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)


def forget_user(
    store: LakeStore,
    user_id: str,
    *,
    now: datetime,
    keep_messages: bool = False,
    names: bool = False,
    even_if_unknown: bool = False,
    dry_run: bool = False,
    pseudonym_key: str | None = None,
    work_dir: Path | None = None,
    publish_again: Callable[[], list[str]] | None = None,
    progress: Progress = silent,
) -> ForgetReport:
    """Remove a person, and put a hash of their id on the suppression list.

    It reads the checkpoint and the records since then, the columns of all live files that may name the person, and the
    files that it rewrites.

    :param now: aware.
    :param keep_messages: keep what they sent as rows without author and text, so that threads and counts hold.
    :param names: texts of others lose names of one word as well, and the id even if it is an ordinary word.
    :param even_if_unknown: put an id that the lake does not know on the list, and do nothing else.
    :param dry_run: change nothing, and report what a removal would do.
    :param pseudonym_key: the key of loads with ``hash_users``; the person's pseudonym is then removed as well.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param publish_again: brings published tables up to date before files are deleted, and returns their formats.
    :raises CallError: the user id is empty.
    :raises UnknownUserError: the lake does not know the id.
    :raises LakeError: the lake cannot be read or written.
    """
    if not user_id.strip():
        raise CallError("there is no user id to forget; give the id that the service knows the person by")
    catalog_file.require_lake(store)
    started = time.monotonic()
    ids = [user_id, *([pseudonym(user_id, pseudonym_key)] if pseudonym_key else [])]
    before = suppression_list.read(store)
    listed = before.among(ids)
    people = [Person(user_id=each, keep_messages=keep_messages, any_word=names) for each in ids]
    report = ForgetReport(keep_messages=keep_messages, dry_run=dry_run)
    remember = functools.partial(_remember, store, ids, now=now)
    losses = Losses(store)
    removal = Removal(store, report, losses, work_dir=work_dir, progress=progress, remember=remember)
    loads = loads_of(commit_log.read_snapshot(store))
    # A removal that broke off may have left the id in texts only. Someone has said that it is right.
    report.is_known = bool(listed) or losses.on_latest(lambda snapshot: _is_known(store, snapshot, people, work_dir))
    if not report.is_known and not even_if_unknown:
        raise UnknownUserError(losses.on_latest(lambda snapshot: _unknown(store, snapshot, user_id, work_dir)))
    if dry_run:
        if report.is_known:
            losses.on_latest(lambda snapshot: removal.survey(snapshot, people))
        report.seconds = time.monotonic() - started
        return report
    remember(people)
    states = {before.digest, suppression_list.read(store).digest}
    if report.is_known:
        if listed and names:  # their rows are gone, and their names are known as hashes only
            people += losses.on_latest(lambda snapshot: _named_in_texts(store, snapshot, ids, work_dir))
        loads = removal.remove(people)
        if publish_again is not None:
            report.published = publish_again()
        removal.clean_up(now)
    _mark_searched(store, before, ids, states, loads)
    finish_removals(store, now=now, work_dir=work_dir, losses=losses)
    report.seconds = time.monotonic() - started
    log.info("people removed files=%d rows=%d", len(report.files), sum(report.removed.values()))
    return report


def forget_people(
    store: LakeStore,
    people: Sequence[Person],
    *,
    now: datetime,
    work_dir: Path | None = None,
    losses: Losses | None = None,
) -> ForgetReport:
    """Remove people who are on the suppression list already.

    :param now: aware.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param losses: the files that the same work has found lost.
    :raises LakeError: the lake cannot be read or written.
    """
    report = ForgetReport()
    removal = Removal(store, report, losses or Losses(store), work_dir=work_dir)
    removal.remove(people)
    removal.clean_up(now)
    log.info("people removed files=%d rows=%d", len(report.files), sum(report.removed.values()))
    return report


def finish_removals(
    store: LakeStore,
    *,
    now: datetime,
    work_dir: Path | None = None,
    is_load: bool = False,
    listed: SuppressionList | None = None,
    losses: Losses | None = None,
) -> None:
    """Remove people on the suppression list from loads that no removal has searched for them.

    Such a load read the list before they were on it, and died before it read the list again.

    :param now: aware.
    :param work_dir: where to work until the commit; by default on the lake's own disk.
    :param is_load: a load calls: it does not search a whole lake whose list an older version wrote.
    :param listed: the list, if the caller has just read it.
    :param losses: the files that the same work has found lost.
    :raises LakeError: the lake cannot be read or written.
    """
    try:
        listed = listed or suppression_list.read(store)
    except LakeError as error:
        if is_load:
            raise
        log.warning("removals that broke off are not finished: %s", error.message)
        return
    if not listed.entries or (is_load and suppression_list.is_of_older_version(store, listed)):
        return
    snapshot = commit_log.read_snapshot(store)
    loads = loads_of(snapshot)
    stale = suppression_list.unchecked(store, listed, loads.items())
    if not stale:
        return
    suspected = [file for each in snapshot.records if each.load_id in stale for file in each.files]

    losses = losses or Losses(store)

    def find(latest: Snapshot) -> list[Person]:
        with search(store, latest, work_dir) as con:
            return people_of(con, relations(store, latest, suspected), listed)

    if people := losses.on_latest(find):
        log.warning("loads contain people who were removed from the lake; removing them loads=%d", len(stale))
        forget_people(store, people, now=now, work_dir=work_dir, losses=losses)
    if suppression_list.read(store).digest == listed.digest:
        suppression_list.mark_checked(store, listed, loads.keys() - losses.loads(snapshot))


def unchecked_loads(store: LakeStore, snapshot: Snapshot) -> set[str]:
    """Return the loads that may contain people on the suppression list.

    :raises LakeError: the list cannot be read.
    """
    return suppression_list.unchecked(store, suppression_list.read(store), loads_of(snapshot).items())


def _mark_searched(
    store: LakeStore,
    before: SuppressionList,
    ids: Sequence[str],
    states: Collection[str],
    loads: Mapping[str, str],
) -> None:
    """Record that loads were searched for these people, unless the list has changed otherwise meanwhile.

    :param before: the list as it was before these people were on it.
    :param states: digests of the list from then on.
    :param loads: the loads that were searched.
    """
    after = suppression_list.read(store)
    ours = after.among(ids).values()
    others = {digest: entry for digest, entry in after.entries.items() if entry not in ours}
    if others != {digest: entry for digest, entry in before.entries.items() if digest in others}:
        return
    earlier = suppression_list.checked(store, before.digest)
    states = {*states, after.digest}
    ids_searched = [load_id for load_id, digest in loads.items() if digest in states or load_id in earlier]
    suppression_list.mark_checked(store, after, ids_searched)


def _remember(store: LakeStore, ids: Sequence[str], people: Sequence[Person], *, now: datetime) -> None:
    """Put a person on the suppression list under each of their ids, with all of their names."""
    names = sorted({name for person in people for name in person.names})
    for each in ids:
        suppression_list.add(
            store, each, keep_messages=people[0].keep_messages, any_word=people[0].any_word, names=names, now=now
        )


def _is_known(store: LakeStore, snapshot: Snapshot, people: Sequence[Person], work_dir: Path | None) -> bool:
    """Return whether the lake has a person's id in a column of ids, in a message id, or as a user in JSON."""
    with search(store, snapshot, work_dir) as con:
        found = relations(store, snapshot)
        if has_id(con, found, [each for person in people for each in person.ids]):
            return True
        redactor = Redactor(con, people, {})
        return any(redactor.names_user(table, found[table.name]) for table in TABLES if table.name in found)


def _unknown(store: LakeStore, snapshot: Snapshot, user_id: str, work_dir: Path | None) -> str:
    """Return the sentence that refuses an id. It names no person."""
    with search(store, snapshot, work_dir) as con:
        is_like = has_like_id(con, relations(store, snapshot), user_id)
    hint = (
        " It has an id that differs only in upper and lower case, or in how characters are encoded." if is_like else ""
    )
    return (
        f"the lake at {store.uri} does not know this user id, and nothing was changed.{hint} Check the id; to keep the "
        "person out of later loads all the same, give even_if_unknown"
    )


def _named_in_texts(store: LakeStore, snapshot: Snapshot, ids: Sequence[str], work_dir: Path | None) -> list[Person]:
    """Return the names that the suppression list has for a person, as texts of the lake write them."""
    listed = suppression_list.read(store)
    ours = replace(listed, entries={entry.user_id: entry for entry in listed.among(ids).values()})
    with search(store, snapshot, work_dir) as con:
        return named_in_texts(con, relations(store, snapshot), ours)
