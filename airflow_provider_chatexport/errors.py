"""The errors of this package, in one tree.

A message says what failed, where, and what to do. It never quotes the text of a chat message, a key or a link.

ChatExportError
├── CallError                    the call itself is wrong; repeating it cannot help (exit code 2)
│   ├── WindowError              no usable window: absent, of zero length, without a time zone, or reversed
│   └── ConnectionSettingsError  the API key, the API secret or an address is missing or malformed
├── ServiceError                 the service answered with an error, or did not answer
│   ├── UnauthorizedError        the service refuses the key, the secret or the token (401, 403)
│   ├── NotFoundError            the service does not know the task (404)
│   ├── RequestRefusedError      any other 4xx: a channel that does not exist, too many channels, ...
│   ├── RateLimitedError         too many requests (429); says when to come back
│   │   └── ApiBudgetError       the database time for such calls is used up (429)
│   ├── ServiceUnavailableError  5xx, 408, a lost connection, a timeout
│   └── UnexpectedReplyError     the reply is not what the service documents
├── TaskFailedError              the service ended an export as failed
├── TaskOverdueError             an export was not completed by its deadline
├── DownloadError                an export file could not be downloaded whole
│   ├── LinkExpiredError         the link has expired; the next status request returns a new one
│   └── FileGoneError            the service deletes export files after 60 days; export again
├── InputError                   a file is not an export, or is cut off
│   └── TooManyRejectsError      more lines were rejected than the caller allows
├── ShrinkError                  a load would take away all messages of a channel, or more messages than allowed
└── LakeError                    the lake cannot be read or written
    ├── DamagedRecordError       a file in the folder of load records is not a record
    ├── MovedLakeError           the catalog was made when the lake had another address
    └── UnknownUserError         the lake does not know the user who is to be forgotten
"""

from __future__ import annotations

import re
from typing import Any, Final

_CREDENTIALS: Final = re.compile(r"://[^/@\s]+@")


def without_credentials(text: str) -> str:
    """Return a text without the user names and passwords of the addresses in it."""
    return _CREDENTIALS.sub("://***@", text)


class ChatExportError(Exception):
    """The root of the tree.

    Catch the errors that you can act on by name, and the root for all others::

        try:
            task_id = client.submit_channels(request)
        except RateLimitedError as error:
            print(f"try again in {error.retry_after_s or 60:.0f} s")
        except ChatExportError as error:
            print(f"{error} (worth a retry: {error.retryable})")

    ``message`` is the sentence. ``retryable`` says whether the same call may succeed later without any change.
    ``argument`` is the argument that the sentence names, so that the command line can write it as an option. ``facts``
    holds the details, which are also attributes of the error.
    """

    retryable = False
    argument: str | None = None

    def __init__(self, message: str, **facts: Any) -> None:
        # Messages contain addresses of lakes and services, and some addresses contain a password.
        self.message = without_credentials(message)
        super().__init__(self.message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is rebuilt from ``args`` alone; the facts would be lost between processes.
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[ChatExportError], message: str, facts: dict[str, Any]) -> ChatExportError:
    return kind(message, **facts)


class CallError(ChatExportError):
    """The call itself is wrong: an argument, an option or a combination of them."""


class WindowError(CallError):
    """The run has no usable window.

    It is absent, has zero length, lacks a time zone, or its ``since`` is after its ``until``.
    """


class ConnectionSettingsError(CallError):
    """The API key, the API secret or an address is missing or malformed."""


class ServiceError(ChatExportError):
    """The service answered with an error, or did not answer.

    ``http_status`` is None when there was no answer. ``code`` is the service's own error number ("API Error Codes").
    """

    http_status: int | None = None
    code: int | None = None


class UnauthorizedError(ServiceError):
    """The service refuses the key or the token, or what they are allowed to do (401, 403)."""


class NotFoundError(ServiceError):
    """The service does not know the task or the address (404, or its message "Can't find task")."""


class RequestRefusedError(ServiceError):
    """The service refuses the request (any other 4xx).

    ``is_missing``: the service says that something in the request does not exist. ``part_may_succeed``: the refusal
    is about a channel or about the size of the request, so a part of the request may succeed. ``is_too_large_a_user``:
    a user has more messages or reactions than the service exports.
    """

    is_missing: bool = False
    part_may_succeed: bool = False
    is_too_large_a_user: bool = False


class RateLimitedError(ServiceError):
    """Too many requests (429).

    ``retry_after_s``: seconds until the service accepts the next request; None if it did not say.
    """

    retryable = True
    retry_after_s: float | None = None


class ApiBudgetError(RateLimitedError):
    """The app has used up its database time for such calls ("API Budget"; 429 with ``X-Budget-Used-Ms``).

    The service counts this time over a sliding minute and in milliseconds: ``used_ms`` of ``limit_ms``, with
    ``remaining_ms`` left. Each is None if the service did not say. The remedy is a cheaper query, not fewer requests.
    """

    used_ms: float | None = None
    limit_ms: float | None = None
    remaining_ms: float | None = None


class ServiceUnavailableError(ServiceError):
    """The service failed, was too slow, or could not be reached."""

    retryable = True


class UnexpectedReplyError(ServiceError):
    """The reply is not what the service documents. Often it comes from a proxy or a login page."""


class TaskFailedError(ChatExportError):
    """The service ended the export ``task_id`` as failed or canceled."""

    task_id: str = ""


class TaskOverdueError(ChatExportError):
    """Exports were not completed by their deadline. ``task_ids`` names the open ones."""

    task_ids: tuple[str, ...] = ()


class DownloadError(ChatExportError):
    """An export file could not be downloaded whole, or could not be stored."""

    retryable = True


class LinkExpiredError(DownloadError):
    """The file host refuses the link. The next status request returns a new one."""


class FileGoneError(DownloadError):
    """The service no longer has the file: it deletes export files after 60 days."""

    retryable = False


class InputError(ChatExportError):
    """A file is not an export, or is cut off."""


class TooManyRejectsError(InputError):
    """More lines were rejected than the caller allows. The load was not committed."""


class ShrinkError(ChatExportError):
    """A load would take away messages that the lake shows.

    It has none of channels that have messages in the lake, which ``cids`` names; or more than ``max_vanished`` vanish.
    """

    cids: tuple[str, ...] = ()


class LakeError(ChatExportError):
    """The lake cannot be read or written. A full disk or an unreachable store may be temporary.

    ``suspects`` are the data files whose damage may be the cause. It is empty if any file may be, and None if damage is
    not the cause.
    """

    retryable = True
    suspects: tuple[str, ...] | None = None


class DamagedRecordError(LakeError):
    """A file in the folder of load records is not a record."""

    retryable = False


class MovedLakeError(LakeError):
    """The catalog was made when the lake had another address, and would show the files there."""

    retryable = False


class UnknownUserError(LakeError):
    """The lake does not know the id of the user who is to be forgotten."""

    retryable = False
    argument = "even_if_unknown"
