"""The first step of a load: its files are normalized and staged, and refused if they must not be loaded."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.options import LoadOptions
from airflow_provider_chatexport.core.progress import CONVERT, Progress
from airflow_provider_chatexport.errors import InputError, TooManyRejectsError
from airflow_provider_chatexport.lake.normalize.input_file import InputFile
from airflow_provider_chatexport.lake.staging.conversion import Conversion
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
    if not options.allows(rejected=counts.rejected, lines=counts.lines):
        number, line = conversion.first_reject()
        raise TooManyRejectsError(
            f"{counts.rejected} of {counts.lines} lines could not become rows, and {options.allowed_rejects} are "
            f"allowed; nothing was loaded. The first is line {line} of {files[number].name}. Allow more (without "
            "strict any number), and the table rejects will say why"
        )
    return staged


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
