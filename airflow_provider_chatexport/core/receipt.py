"""The receipt of an export, which the task that submits it hands to the task that loads it.

A receipt crosses processes (XCom, trigger events, command line), so it is a small versioned value of JSON types. It
never contains a link, a key or a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Self

from airflow_provider_chatexport.core.arguments import RENDER_NATIVELY, parse_rendered
from airflow_provider_chatexport.core.entities import ExportKind
from airflow_provider_chatexport.core.plan import ChannelsRequest, UsersRequest
from airflow_provider_chatexport.core.retention import Retention
from airflow_provider_chatexport.core.task import TaskId
from airflow_provider_chatexport.core.times import format_rfc3339, parse_rfc3339
from airflow_provider_chatexport.errors import CallError

RECEIPT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """An export that the service accepted: the id of its task, and the request.

    ``created_at`` is when the service created the task, by its clock. It becomes the ``_exported_at`` of the rows.
    ``retention`` is what the service said of its policies when the export was submitted; None if it was not asked.
    """

    task_id: TaskId
    request: ChannelsRequest | UsersRequest
    created_at: datetime | None = None
    retention: Retention | None = None

    @property
    def kind(self) -> ExportKind:
        """Whether this is an export of channels or of users."""
        return ExportKind.CHANNELS if isinstance(self.request, ChannelsRequest) else ExportKind.USERS

    def to_json(self) -> dict[str, Any]:
        """Return the receipt as JSON types."""
        return {
            "v": RECEIPT_VERSION,
            "task_id": self.task_id,
            "kind": self.kind.value,
            "request": self.request.to_json(),
            "created_at": format_rfc3339(self.created_at) if self.created_at else None,
            "retention": self.retention.to_json() if self.retention else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what ``to_json`` returned.

        :raises CallError: the value is not a receipt, or its version is unknown.
        """
        try:
            if value["v"] != RECEIPT_VERSION:
                raise CallError(
                    f"this export receipt has version {value['v']}, and this installation reads version "
                    f"{RECEIPT_VERSION}; run export and load with the same version of the provider"
                )
            request_types: dict[str, type[ChannelsRequest | UsersRequest]] = {
                "channels": ChannelsRequest,
                "users": UsersRequest,
            }
            created_at, task_id = value["created_at"], value["task_id"]
            retention = value.get("retention")  # a task may be retried after an upgrade, with an older receipt
            if not (isinstance(task_id, str) and task_id):
                raise TypeError("task_id is not text")
            return cls(
                task_id=TaskId(task_id),
                request=request_types[value["kind"]].from_json(value["request"]),
                created_at=parse_rfc3339(created_at) if created_at else None,
                retention=Retention.from_json(retention) if retention else None,
            )
        except (KeyError, TypeError, ValueError):
            raise CallError(
                "this is not an export receipt; pass what ExportChannelsOperator or ExportUsersOperator returned"
            ) from None


def receipts_from(exports: Any) -> list[Receipt]:
    """Return the receipts in what export tasks returned.

    :param exports: a receipt, a list of them, nested lists as mapped tasks return them, or any of these as the text
        that a template rendered.
    :raises CallError: there is no receipt, or something that is not a receipt.
    """
    receipts = [Receipt.from_json(dict(each)) for each in _flattened(exports)]
    if exports in ("", "None"):
        raise CallError(
            "there is no export: a template in exports rendered a value that is not there, as when the task that it "
            "names returned nothing, or was skipped; give the output of an export task, such as export.output"
        )
    if not receipts:
        raise CallError("there is no export; give the output of ExportChannelsOperator or ExportUsersOperator")
    return receipts


def _flattened(exports: Any) -> Iterable[Mapping[str, Any]]:
    if isinstance(exports, str):
        try:
            exports = parse_rendered(exports.strip() or "None")
        except ValueError:
            raise CallError(f"exports is text that cannot be read as a list of receipts; {RENDER_NATIVELY}") from None
    if isinstance(exports, Mapping):
        yield exports
    elif isinstance(exports, Iterable) and not isinstance(exports, (str, bytes)):
        for each in exports:
            yield from _flattened(each)
    elif exports is not None:
        raise CallError("exports is not a list of receipts; give the output of an export task, such as export.output")


def completed_receipts(receipts: Iterable[Receipt], created_at: Mapping[TaskId, datetime]) -> list[dict[str, Any]]:
    """Return the receipts as JSON types.

    :param created_at: when the service made each export, by its own clock.
    """
    return [replace(receipt, created_at=created_at.get(receipt.task_id)).to_json() for receipt in receipts]
