"""Lake addresses: which are refused, and which store serves the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.schema.tables import COLUMN_NAMES
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.object_store import ObjectStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

# ``s3:/bucket`` is a relative path to fsspec, and a slip to the person who typed it. fsspec does know ``file:/path``.
_ONE_SLASH: Final = re.compile(r"(?!file:|local:)[A-Za-z][\w+.-]+:/(?!/)")


def open_store(uri: str | Path) -> LakeStore:
    """Return the store at a lake address: a local folder, or any address that fsspec knows. Nothing is created.

    :raises LakeError: no file system serves the address, or no lake can lie there.
    """
    address = str(uri)
    if (scheme := _ONE_SLASH.match(address)) and not Path(scheme.group()).exists():
        raise LakeError(f"the lake address {uri} lacks a slash; write {scheme.group()}/..., or ./{uri} for a folder")
    fs, root = _file_system_of(address)
    keys = {part.partition("=")[0].lower() for part in root.split("/") if "=" in part}
    if taken := sorted(keys & COLUMN_NAMES):
        raise LakeError(
            f"the lake address {uri} has a folder {taken[0]}=..., which readers of Parquet take for that column; "
            "choose another folder"
        )
    if not isinstance(fs, LocalFileSystem):
        return ObjectStore(address.rstrip("/"), fs, root)
    if "\\" in root:
        raise LakeError(
            f"the lake address {uri} has a backslash, and DuckDB opens no catalog in such a folder; choose another"
        )
    return LocalStore(root)


def _file_system_of(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the folder as it names it, without a slash at the end."""
    try:
        fs, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except Exception as error:  # noqa: BLE001 - each file system refuses in its own way
        why = error if isinstance(error, (ImportError, ValueError)) else type(error).__name__
        raise LakeError(
            f"no file system serves the lake address {address}: {why}; give a folder, or an address such as "
            "s3://bucket/lake, for which there is airflow-provider-chatexport[s3]"
        ) from None
    return fs, str(root).rstrip("/")
