"""The way from a task to a lake in an object store: an Airflow connection, as for Airflow's own object storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_chatexport.core.arguments import require_text
from airflow_provider_chatexport.errors import CallError, ConnectionSettingsError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def path_text(path: str | Path | None) -> str | None:
    """Return a path as text. Airflow 3.1 calls ``resolve`` of whatever has such a method, and does not render it."""
    return str(path) if isinstance(path, Path) else path


def parse_work_dir(work_dir: str | None) -> Path | None:
    """Return the folder to work in; None if the argument is empty.

    :raises CallError: a template rendered no value.
    """
    if work_dir is None or work_dir == "":
        return None
    return Path(require_text(work_dir, "work_dir", "give a folder, or leave it out")).expanduser()


def lake_filesystem(lake: str, lake_conn_id: str | None) -> AbstractFileSystem | None:
    """Return the file system for a lake's address that a connection describes; None without a connection.

    The provider of the connection's type makes it, for ``ObjectStoragePath`` as well: amazon for s3, google for gs,
    microsoft.azure for abfs. Secrets stay in the file system; nothing that Airflow stores or logs has them.

    :param lake: address of the lake.
    :param lake_conn_id: the connection, such as ``aws_default``; None or empty for the environment of the worker.
    :raises CallError: the lake is a local folder, or no provider that is installed serves its address.
    :raises ConnectionSettingsError: there is no such connection, or it cannot be used.
    """
    if not lake_conn_id or lake_conn_id == "None":  # as a template renders it
        return None
    # This imports fsspec and universal_pathlib, and looks through all providers.
    from airflow.sdk.io import get_fs, has_fs  # noqa: PLC0415

    scheme, separator, _ = lake.partition("://")
    if not separator or scheme in ("file", "local"):
        raise CallError(
            f"lake_conn_id is {lake_conn_id!r}, and the lake {lake} is a local folder; leave lake_conn_id out, or give "
            "an address such as s3://bucket/lake",
            argument="lake_conn_id",
        )
    if not has_fs(scheme):
        raise CallError(
            f"lake_conn_id is {lake_conn_id!r}, and no installed provider serves {scheme}://; install one, such as "
            "apache-airflow-providers-amazon[s3fs] for s3://",
            argument="lake_conn_id",
        )
    try:
        # Without this, the amazon provider would go on with other credentials, or with none.
        BaseHook.get_connection(lake_conn_id)
        return get_fs(scheme, lake_conn_id)
    except AirflowNotFoundException:
        raise ConnectionSettingsError(
            f"there is no connection {lake_conn_id!r} (lake_conn_id); create one of the type that serves {scheme}://"
        ) from None
    except ImportError as error:
        raise CallError(
            f"lake_conn_id is {lake_conn_id!r}, and the provider that serves {scheme}:// lacks a package ({error}); "
            "install it",
            argument="lake_conn_id",
        ) from None
    except Exception as error:  # noqa: BLE001 - every provider has errors of its own, and their text may have secrets
        raise ConnectionSettingsError(
            f"the connection {lake_conn_id!r} (lake_conn_id) leads to no store ({type(error).__name__}); check its "
            "type and its fields"
        ) from None
