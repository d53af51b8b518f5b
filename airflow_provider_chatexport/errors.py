"""The one error tree. A message says what failed, where, what to do; none quotes a person's text, a key or a link.

ChatExportError
├── CallError                    the call is wrong as it stands; repeating it cannot help (exit code 2)
│   ├── WindowError              no window, zero length, naive or reversed times
│   └── ConnectionSettingsError  key, secret or address missing or malformed
├── ServiceError                 the service answered with an error, or not at all
│   ├── UnauthorizedError        key, secret or token refused (401, 403)
│   ├── NotFoundError            the service does not know the task (404)
│   ├── RequestRefusedError      any other 4xx: a channel that does not exist, too many of them, ...
│   ├── RateLimitedError         429; carries when to come back
│   ├── ServiceUnavailableError  5xx, 408, a lost connection, a time-out: retryable
│   └── UnexpectedReplyError     a reply that is not what the service documents
├── TaskFailedError              the service ended an export as failed
├── TaskOverdueError             an export was not done by its deadline
├── DownloadError                an export file could not be fetched whole
│   ├── LinkExpiredError         the link is dead; a new status request makes another
│   └── FileGoneError            the service keeps files for 60 days; export anew
├── InputError                   a file is not an export
│   └── TooManyRejectsError      more lines were rejected than the caller allows
├── ShrinkError                  a load would hide all that a channel shows, with nothing in its place
└── LakeError                    the lake cannot be read or written
"""

from __future__ import annotations

import re
from typing import Any, Final

_CREDENTIALS: Final = re.compile(r"://[^/@\s]+@")


class ChatExportError(Exception):
    """Root of the tree. ``retryable`` says whether the same call may succeed later without anyone changing anything."""

    retryable = False

    def __init__(self, message: str, **facts: Any) -> None:
        # Addresses of lakes and services stand in messages, and some have a password in them.
        self.message = _CREDENTIALS.sub("://***@", message)
        super().__init__(self.message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions rebuild themselves from ``args`` alone, which would lose the facts on the way between processes.
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[ChatExportError], message: str, facts: dict[str, Any]) -> ChatExportError:
    return kind(message, **facts)


class CallError(ChatExportError):
    """The call is wrong as it stands."""


class WindowError(CallError):
    """There is no usable window: none at all, zero length, naive times, or since after until."""


class ConnectionSettingsError(CallError):
    """The API key, the secret or the address is missing or malformed."""


class ServiceError(ChatExportError):
    """The service answered with an error, or did not answer.

    ``http_status`` is None when there was no answer; ``code`` is the service's own error number ("API Error Codes").
    """

    http_status: int | None = None
    code: int | None = None


class UnauthorizedError(ServiceError):
    """The service refuses the key, the token, or what they may do (401, 403)."""


class NotFoundError(ServiceError):
    """The service does not know what was asked for (404, or its message "Can't find task")."""


class RequestRefusedError(ServiceError):
    """The service refuses the request itself (4xx).

    ``is_missing``: it says that something asked for does not exist. ``may_be_of_a_part``: what it says is about a
    channel or about the size, so that a part of the request may do.
    """

    is_missing: bool = False
    may_be_of_a_part: bool = False


class RateLimitedError(ServiceError):
    """Too many requests (429). ``retry_after_s``: seconds until the service wants to hear from us again."""

    retryable = True
    retry_after_s: float | None = None


class ServiceUnavailableError(ServiceError):
    """The service failed, was slow, or could not be reached."""

    retryable = True


class UnexpectedReplyError(ServiceError):
    """The reply cannot be read as what the service documents."""


class TaskFailedError(ChatExportError):
    """The service ended an export as failed. ``task_id`` names it."""

    task_id: str = ""


class TaskOverdueError(ChatExportError):
    """Exports were not done by their deadline. ``task_ids`` names those still open."""

    task_ids: tuple[str, ...] = ()


class DownloadError(ChatExportError):
    """An export file could not be fetched whole."""

    retryable = True


class LinkExpiredError(DownloadError):
    """The file host refuses the link; a new status request makes a fresh one."""


class FileGoneError(DownloadError):
    """The service no longer holds the file: it keeps export files for 60 days."""

    retryable = False


class InputError(ChatExportError):
    """A file is not an export, or breaks off."""


class TooManyRejectsError(InputError):
    """More lines were rejected than the caller allows; nothing was committed."""


class ShrinkError(ChatExportError):
    """A load has no message of a channel where the lake shows some. ``cids`` names the channels."""

    cids: tuple[str, ...] = ()


class LakeError(ChatExportError):
    """The lake cannot be read or written where it was asked to be. A full disk or a store that is away may pass."""

    retryable = True
