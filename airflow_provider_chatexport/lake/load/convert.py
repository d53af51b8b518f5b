"""The first step of a load: its files are normalized and staged, and refused if they must not be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.progress import CONVERT, Progress
from airflow_provider_chatexport.errors import InputError, TooManyRejectsError
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.staging.conversion import Conversion
from airflow_provider_chatexport.lake.staging.counts import n_decoded
from airflow_provider_chatexport.lake.staging.stage import StagedFile


def convert_files(
    conversion: Conversion, files: Sequence[InputFile], options: LoadOptions, progress: Progress
) -> list[tuple[InputFile, StagedFile]]:
    """Convert all files of a load, and return what each turned out to be.

    :raises InputError: a file is not an export, is damaged, or changed while it was read.
    :raises TooManyRejectsError: the files have more rejects than allowed.
    """
    staged = [(file, _add(conversion, file)) for file in files]
    progress(CONVERT, 0, None)
    conversion.finish()
    counts = conversion.counts
    decoded = n_decoded(asdict(counts))
    if not options.allows(rejected=counts.rejected, decoded=decoded):
        number, line, offset, reason = conversion.first_reject()
        remedy = "if the others are worth loading, allow more (max_rejected)"
        if counts.rejected == decoded:
            remedy = "check that this is an export file; to look at the rejects in a lake, allow more (max_rejected)"
        raise TooManyRejectsError(
            f"{rejected_of(asdict(counts))}, and {options.allowed_rejects} are allowed; nothing was loaded. The first "
            f"is line {line} of {files[number].name}, at byte {offset} ({reason}): {remedy}",
            argument="max_rejected",
        )
    return staged


def rejected_of(counts: Mapping[str, Any]) -> str:
    """Return how much of a load was rejected, for a sentence.

    :param counts: as a record has them.
    """
    decoded = n_decoded(counts)
    what = "lines" if decoded == counts["lines"] else "lines and objects in them"
    return f"{counts['rejected']} of {decoded} {what} could not become rows"


def _add(conversion: Conversion, file: InputFile) -> StagedFile:
    try:
        staged = conversion.add(file)
    except InputError as error:
        raise _named(error, file) from None
    if file.fingerprint is not None and not file.fingerprint.is_of(file.path):
        raise InputError(f"{file.path} changed while it was read; nothing was loaded, load it once it is whole")
    if not staged.holds_export and file.task_id is not None:
        # A proxy's error, say. Committed, it would cover a window without any of its messages.
        raise InputError(
            f"the file of {file.name} holds no line that is part of an export, but something else, as a proxy may send "
            "in its place; nothing was loaded, fetch it again",
            retryable=True,
        )
    if staged.kind is ExportKind.USERS and file.window is not None:
        raise InputError(
            f"{file.name} looks like an export of users (users and messages, and no channel), which has no window; "
            "leave since and until out, or say that it is an export of channels"
        )
    return staged


def _named(error: InputError, file: InputFile) -> InputError:
    """Return an error that names a fetched file by its task: its path is gone when the sentence is read.

    Fetched again, the file may come whole.
    """
    if file.task_id is None:
        return error
    return InputError(error.message.replace(str(file.path), file.name), **{"retryable": True, **error.facts})
