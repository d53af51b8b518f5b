"""How the libraries of table formats reach the store of a lake: with what the lake's own file system uses.

A lake may be reached by options, by an Airflow connection, or by the environment. In the end its file system has a
client with credentials, a region and an address. Those are taken from there, so that a published table is written with
the rights of the process that writes the lake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import fsspec.asyn

from airflow_provider_chatexport.errors import LakeError
from airflow_provider_chatexport.lake.storage.object_store import ObjectStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

_S3: Final = ("s3", "s3a")
# Stores that the libraries reach by their own means: the variables of the environment that their clients know.
_BY_ENVIRONMENT: Final = ("gs", "gcs", "abfs", "abfss", "az", "adl")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """Credentials and address of an S3 store. Without keys, requests are not signed."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = None


def s3_access(store: LakeStore) -> S3Access | None:
    """Return how to reach the store of a lake in S3; None for a lake elsewhere.

    :raises LakeError: nothing but this lake's own file system reaches the store, or it finds no credentials.
    """
    if not isinstance(store, ObjectStore):
        return None
    scheme = store.uri.partition("://")[0]
    if scheme in _BY_ENVIRONMENT:
        return None
    if scheme not in _S3:
        raise LakeError(
            f"the lake at {store.uri} cannot be published: table formats reach folders and s3://, gs:// and abfs://; "
            "publish a lake that lies there",
            retryable=False,
        )
    with store.io_errors("read"):
        return _of_s3fs(store.file_system)


def _of_s3fs(fs: Any) -> S3Access:
    fs.connect()
    client = fs._s3
    # botocore has found the credentials by then, wherever they come from, and renews those that expire.
    credentials = client._request_signer._credentials
    frozen = None
    if credentials is not None and not getattr(fs, "anon", False):
        frozen = fsspec.asyn.sync(fs.loop, credentials.get_frozen_credentials)
    return S3Access(
        key=frozen.access_key if frozen else None,
        secret=frozen.secret_key if frozen else None,
        token=frozen.token if frozen else None,
        region=client.meta.region_name,
        endpoint_url=client.meta.endpoint_url,
    )
