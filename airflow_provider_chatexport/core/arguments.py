"""Text that a person, a shell or a template gives: what is absent comes as nothing, or as ``None``."""

from __future__ import annotations

from typing import Final

from airflow_provider_chatexport.errors import CallError

GIVE_LAKE: Final = "give a folder, or an address such as s3://bucket/lake"


def require_text(value: object, name: str, hint: str) -> str:
    """The text without space around it.

    :param hint: what to give.
    :raises CallError: it is empty, as a template over an absent XCom renders, or no text.
    """
    text = value.strip() if isinstance(value, str) else value
    if text in ("", "None", None):
        raise CallError(f"{name} is empty; {hint}")
    if not isinstance(text, str):
        raise CallError(f"{name} is a {type(value).__name__} and no text; {hint}")
    return text
