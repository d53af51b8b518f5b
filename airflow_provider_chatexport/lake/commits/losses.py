"""Data files that are missing or damaged: how they are found, and how work goes on without them.

A file of a record never changes. So a file that is gone, or that differs from what its record says, is lost. Work that
fails looks whether files are lost, says which, and starts again without them (``Losses``). That changes nothing in the
lake. ``chatexport repair`` records the loss, and then all work goes on without them.
"""

from __future__ import annotations

import errno
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.commits import log as commit_log
from airflow_provider_chatexport.lake.commits import visibility
from airflow_provider_chatexport.lake.commits.file_state import FileState
from airflow_provider_chatexport.lake.commits.record import LoadRecord
from airflow_provider_chatexport.lake.commits.snapshot import Snapshot
from airflow_provider_chatexport.lake.storage.store import LakeStore

log = logging.getLogger(__name__)

CURE: Final = (
    "restore it from a backup, or run chatexport repair, which records the loss and names the windows to export again"
)
# How many files a warning names.
_NAMED: Final = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LostFile:
    """A file that views should read and cannot.

    :param why: the rest of a sentence that starts with the file.
    """

    state: FileState
    why: str

    @property
    def path(self) -> str:
        """The path that its record gives it."""
        return self.state.file.path


def find_lost(store: LakeStore, snapshot: Snapshot, *, content_of: Collection[str] | None = ()) -> list[LostFile]:
    """Return the files of a snapshot that are missing or damaged.

    Compares the files' sizes, which costs a listing.

    :param snapshot: of records that were read before: a file is there before its record is.
    :param content_of: paths of files of which the content is compared as well; None for all files.
    :raises LakeError: the lake cannot be read.
    """
    readable = {visibility.path_in(store, each): each for each in snapshot.readable_states if each.is_readable}
    sizes: dict[str, int] = {}
    for folder in {path.partition("/")[0] for path in readable}:
        sizes |= store.sizes(folder)
    found = []
    for path, each in readable.items():
        why = _fault_of_size(sizes.get(path), each.file.size_bytes)
        if why is None and (content_of is None or each.file.path in content_of):
            why = fault_of_content(store, path, each.file.sha256)
        if why is not None:
            found.append(LostFile(state=each, why=why))
    return found


def _fault_of_size(size: int | None, recorded: int) -> str | None:
    if size is None:
        return "is gone"
    return None if size == recorded else f"has {size} bytes, and {recorded} were written"


def fault_of_content(store: LakeStore, path: str, sha256: str) -> str | None:
    """Return what is wrong with the content of an object, as the rest of a sentence; None if nothing is.

    :raises LakeError: the lake cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for chunk in store.chunks(path):
            digest.update(chunk)
    except FileNotFoundError:
        return "is gone"
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            return "cannot be read from its disk"
        with store.io_errors("read"):
            raise
    return None if digest.hexdigest() == sha256 else "differs from its recorded sha256"


class Losses:
    """The files that a piece of work found missing or damaged, and goes on without.

    :ivar paths: of those files.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self.paths: set[str] = set()

    def on_latest(self, work: Callable[[Snapshot], T]) -> T:
        """Do work on the latest snapshot.

        If it fails, others may have committed meanwhile, and files of its snapshot are gone in the next one: then it
        is repeated. Files may also be lost: then it is repeated without them, and a warning names them once.

        :raises LakeError: the work fails in a lake that has not changed, and in which no more files are lost.
        """
        while True:
            snapshot = commit_log.read_snapshot(self._store).without(self.paths)
            try:
                return work(snapshot)
            except LakeError as error:
                if commit_log.is_latest(self._store, snapshot) and not self._found_more(snapshot, error):
                    raise

    def loads(self, snapshot: Snapshot) -> set[str]:
        """Return the loads that rows of these files come from."""
        return loads_of(snapshot, (each for each in snapshot.file_states if each.file.path in self.paths))

    def _found_more(self, snapshot: Snapshot, error: LakeError) -> bool:
        """Look for lost files after an error, name them, and return whether there are any."""
        store = self._store
        found = find_lost(store, snapshot)
        if not found and error.suspects is not None:
            found = find_lost(store, snapshot, content_of=error.suspects or None)
        if sum(store.restore_data(each.path, each.state.file.sha256) for each in found):
            return True
        if found:
            self.paths |= {each.path for each in found}
            log.warning("going on without %s", sentence(found, store.uri))
        return bool(found)


def sentence(lost: Collection[LostFile], lake_uri: str) -> str:
    """Return a sentence that names lost files and says what to do."""
    named = ", ".join(f"{each.path}, which {each.why}" for each in list(lost)[:_NAMED])
    others = f", and {len(lost) - _NAMED} other files" if len(lost) > _NAMED else ""
    return f"{len(lost)} lost file{'s' * (len(lost) != 1)} of the lake at {lake_uri} ({named}{others}); {CURE}"


def loads_of(snapshot: Snapshot, files: Iterable[FileState]) -> set[str]:
    """Return the loads that rows of these files may come from."""
    records = {record.load_id: record for record in snapshot.records}
    return {load_id for each in files for load_id in _loads_of(each, records)}


def _loads_of(each: FileState, records: Mapping[str, LoadRecord]) -> Iterator[str]:
    """Yield the loads behind the record of a file that have a file of its table and of its days."""
    ahead = [each.record]
    while ahead:
        record = ahead.pop()
        ahead += [records[load_id] for load_id in (*record.replaces, *record.taken) if load_id in records]
        spans = [file.span for file in record.files if file.table == each.file.table]
        if record.is_load and any(span.since < each.span.until and each.span.since < span.until for span in spans):
            yield record.load_id


def id_of_reload(snapshot: Snapshot, load_id: str) -> str:
    """Return the id under which exports are loaded: the next one, if files of the load with this id are lost.

    The same exports have the same id, and a second load of them changes nothing. If files are lost, it has to bring
    their rows back. Its id is greater, because of two exports of one moment, that with the greater id is right.
    """
    while load_id in snapshot.lost_loads:
        load_id = f"{int(load_id, 16) + 1:0{len(load_id)}x}"
    return load_id
