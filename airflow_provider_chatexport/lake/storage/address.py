"""Lake addresses: how they are written, which are refused, and which store serves the others.

Different readers name the same files: fsspec, DuckDB with its own S3 client, dbt, shells. An address that one of them
reads otherwise than the others would be a lake that a load writes and a query does not find. So an address is brought
into one form, and refused if a part of it means something to one of the readers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from airflow_provider_chatexport.errors import CallError, LakeError
from airflow_provider_chatexport.lake.schema.tables import COLUMN_NAMES
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.object_store import WITHOUT_FOLDERS, ObjectStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CATALOG_NAME: Final = "catalog.duckdb"
# How a lake's address is reached: options of fsspec for it, or a file system of fsspec; None for the environment.
Storage: TypeAlias = "Mapping[str, Any] | AbstractFileSystem | None"

# ``s3:/bucket`` is a relative path to fsspec, and a slip to the person who typed it. fsspec does know ``file:/path``.
_ONE_SLASH: Final = re.compile(r"(?!file:|local:)[A-Za-z][\w+.-]+:/(?!/)")
_WITH_SCHEME: Final = re.compile(r"([A-Za-z][\w+.-]*)://(.*)", re.DOTALL)
_LOCAL_SCHEMES: Final = ("file", "local")
# What readers take for a pattern or a query. DuckDB and fsspec have no way to write such a character as itself.
_PATTERN: Final = re.compile(r"[*?\[\]]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_IS_CATALOG: Final = "is the catalog of a lake"
_SECRET_IN_ADDRESS: Final = re.compile(r"[^/]*:[^/]*@")


def open_store(uri: str | Path, storage: Storage = None) -> LakeStore:
    """Return the store at a lake address: a local folder, or any address that fsspec knows. Nothing is created.

    :param storage: how to reach it, if the environment does not say.
    :raises CallError: ``storage`` does not fit the address.
    :raises LakeError: no file system serves the address, or no lake can lie there.
    """
    address = normalized(str(uri))
    if storage is None and _is_local(address):
        fs, root = None, _local_root(address)
    else:
        fs, root = _file_system_of(address, storage)
    keys = {part.partition("=")[0].lower() for part in root.split("/") if "=" in part}
    if taken := sorted(keys & COLUMN_NAMES):
        raise _refused(uri, f"has a folder {taken[0]}=..., which readers of Parquet take for that column")
    if "\\" in root:
        raise _refused(uri, "has a backslash, and DuckDB opens no catalog in such a folder")
    # Of a local lake, only now: what the folder is called that a relative path starts in.
    if found := _PATTERN.search(root):
        raise _refused(uri, f"has a {found.group()}, which readers take for a pattern of names")
    if fs is not None:
        if address.endswith(f"/{CATALOG_NAME}"):
            raise _refused(
                uri, _IS_CATALOG, cure=f"give the lake's address, {address.removesuffix(f'/{CATALOG_NAME}')}"
            )
        return ObjectStore(address, fs, root)
    if storage is not None and isinstance(storage, Mapping):
        raise CallError(f"the lake {uri} is a local folder and has no use for storage options; leave them out")
    path = _local_path(root)
    if Path(path).is_file():
        what = _IS_CATALOG if path.endswith(f"/{CATALOG_NAME}") else "is a file"
        raise _refused(uri, what, cure=f"give the folder of the lake, such as {Path(path).parent}")
    return LocalStore(path)


def normalized(address: str) -> str:
    """Return an address with a scheme in its one form: no empty parts, none that are ``.``, no slash at the end.

    A path without a scheme is returned as it is.

    :raises LakeError: the address cannot be that of a lake.
    """
    if (slip := _ONE_SLASH.match(address)) and not Path(slip.group()).exists():
        raise LakeError(
            f"the lake address {address} lacks a slash; write {slip.group()}/..., or ./{address} for a folder",
            retryable=False,
        )
    if _CONTROL.search(address):
        raise _refused(repr(address)[1:-1], "has a line break or another control character")
    if "::" in address and "://" in address:
        raise _refused(address, "is a chain of addresses (::)", cure="give the last one of them")
    match = _WITH_SCHEME.fullmatch(address)
    if match is None:
        return address
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme in _LOCAL_SCHEMES:
        return f"{scheme}://{rest}"
    is_bucket = scheme in WITHOUT_FOLDERS
    if is_bucket and _SECRET_IN_ADDRESS.match(rest):
        raise _refused(
            address, "contains a secret, and the catalog shows the address", cure="see docs/object-storage.md"
        )
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(address, "has a part .., and stores of objects have no parent folders")
    if is_bucket and not parts:
        raise _refused(address, "names no bucket", cure=f"write {scheme}://bucket/lake")
    is_absolute = rest.startswith("/") and not is_bucket
    return f"{scheme}://{'/' * is_absolute}{'/'.join(parts)}"


def _refused(address: object, why: str, *, cure: str = "choose another folder") -> LakeError:
    return LakeError(f"the lake address {address} {why}; {cure}", retryable=False)


def _local_path(root: str) -> str:
    """Return an absolute local path without empty parts, ``.`` and ``..``."""
    parts = [part for part in root.split("/") if part not in ("", ".")]
    # The parent of a symbolic link's target is not the folder before the link's name: only the system can say.
    return os.path.realpath(root) if ".." in parts else "".join(f"/{part}" for part in parts)


def _is_local(address: str) -> bool:
    """Return whether an address is surely that of a local folder: a path, or one of the local schemes."""
    scheme = address.partition("://")[0] if "://" in address else None
    return scheme in _LOCAL_SCHEMES if scheme is not None else not address.startswith("data:")


def _local_root(address: str) -> str:
    """Return the absolute path of a local address as fsspec reads it, whose import takes a tenth of a second."""
    prefixes = (f"{scheme}:{slashes}" for scheme in _LOCAL_SCHEMES for slashes in ("//", ""))
    path = address.removeprefix(next((prefix for prefix in prefixes if address.startswith(prefix)), ""))
    path = os.path.expanduser(path) if path.startswith("~") else os.path.join(os.getcwd(), path)  # noqa: PTH111, PTH118, PTH109
    return path.rstrip("/")


def _file_system_of(address: str, storage: Storage) -> tuple[AbstractFileSystem | None, str]:
    """Return the file system of an address, and the folder as it names it, without a slash at the end.

    :return: no file system for a local folder.
    """
    # These imports take a tenth of a second, which a load into a local lake does not need.
    import fsspec  # noqa: PLC0415
    from fsspec.implementations.local import LocalFileSystem  # noqa: PLC0415

    if isinstance(storage, fsspec.AbstractFileSystem):
        scheme = fsspec.utils.get_protocol(address)
        served = (storage.protocol,) if isinstance(storage.protocol, str) else tuple(storage.protocol)
        if scheme not in served:
            raise CallError(
                f"the file system serves {served[0]}://..., and the lake address is {address}; give a file system that "
                f"serves {scheme}://"
            )
        return (
            None if isinstance(storage, LocalFileSystem) else storage,
            str(storage._strip_protocol(address)).rstrip("/"),
        )
    try:
        fs, root = fsspec.core.url_to_fs(address, **{"use_listings_cache": False, **(storage or {})})
    except Exception as error:  # noqa: BLE001 - each file system refuses in its own way
        why = error if isinstance(error, (ImportError, ValueError)) else type(error).__name__
        raise LakeError(
            f"no file system serves the lake address {address}: {why}; give a folder, or an address such as "
            "s3://bucket/lake, for which there is airflow-provider-chatexport[s3]",
            retryable=False,
        ) from None
    return None if isinstance(fs, LocalFileSystem) else fs, str(root).rstrip("/")
