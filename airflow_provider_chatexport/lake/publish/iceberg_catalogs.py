"""Iceberg catalogs: the one in a lake, and those of pyiceberg's configuration; and what their errors mean."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_chatexport.errors import CallError
from airflow_provider_chatexport.lake.publish.access import s3_access
from airflow_provider_chatexport.lake.storage.local_store import LocalStore
from airflow_provider_chatexport.lake.storage.store import LakeStore

try:
    from pyiceberg import exceptions as iceberg_errors
    from pyiceberg.catalog import Catalog, load_catalog
    from pyiceberg.utils.config import Config
    from sqlalchemy.exc import IntegrityError, OperationalError
except ImportError:
    raise CallError(
        "publishing as Iceberg needs pyiceberg; run pip install 'airflow-provider-chatexport[iceberg]'"
    ) from None

FOLDER: Final = "_iceberg"
CATALOG_FILE: Final = f"{FOLDER}/catalog.sqlite"
# What the catalog in the lake is named: its rows have the name.
CATALOG_NAME: Final = "chatexport"
# How long a publisher waits for another one to finish with the SQLite file.
_LOCKED_S: Final = 60
# pyiceberg's other way to reach files imports pandas where that is installed, which takes a second.
_LOCAL_FILES: Final = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO"}
_CONFLICTS: Final = (
    iceberg_errors.CommitFailedException,
    iceberg_errors.CommitStateUnknownException,
    iceberg_errors.ValidationException,
    iceberg_errors.TableAlreadyExistsError,
    iceberg_errors.NamespaceAlreadyExistsError,
    iceberg_errors.NoSuchTableError,
)
REFUSALS: Final = (
    iceberg_errors.UnauthorizedError,
    iceberg_errors.ForbiddenError,
    iceberg_errors.AuthorizationExpiredError,
    iceberg_errors.OAuthError,
)


def catalog_in(store: LakeStore) -> Catalog:
    """Return the catalog in a lake: a SQLite file, which only a disk can hold."""
    if not isinstance(store, LocalStore):
        raise CallError(
            f"the lake at {store.uri} is in an object store, which cannot hold a catalog; name an Iceberg catalog of "
            "pyiceberg's configuration, such as a REST catalog (docs/publishing.md)"
        )
    (path := store.local_path(CATALOG_FILE)).parent.mkdir(parents=True, exist_ok=True)
    return load_catalog(CATALOG_NAME, **_LOCAL_FILES, type="sql", uri=f"sqlite:///{path}?timeout={_LOCKED_S}")


def configured(name: str, store: LakeStore) -> Catalog:
    """Return a catalog of pyiceberg's configuration. If that has no options for S3, those of the lake's store hold."""
    # Read again: pyiceberg itself reads its configuration once, when it is imported.
    properties = Config().get_catalog_config(name)
    if properties is None:
        raise CallError(
            f"pyiceberg knows no catalog {name!r}; describe it in ~/.pyiceberg.yaml, or set "
            f"PYICEBERG_CATALOG__{name.upper()}__URI and its other properties in the environment"
        )
    has_own = any(key.startswith(("s3.", "client.")) for key in properties)
    found: dict[str, Any] = {**({} if has_own else _s3_options(store)), **properties}
    return load_catalog(name, **found)


def _s3_options(store: LakeStore) -> dict[str, str]:
    """Return pyiceberg's options for the S3 store of a lake; none for a lake elsewhere."""
    access = s3_access(store)
    if access is None:
        return {}
    found = {
        "s3.access-key-id": access.key,
        "s3.secret-access-key": access.secret,
        "s3.session-token": access.token,
        "s3.region": access.region,
        "s3.endpoint": access.endpoint_url,
        "s3.anonymous": "true" if access.key is None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def is_conflict(error: Exception) -> bool:
    """Return whether another process was first, or may have been: then everything has to be read again."""
    if isinstance(error, (IntegrityError, *_CONFLICTS)):
        return True
    # SQLite says only as text that another process writes, or has just created the catalog.
    return isinstance(error, OperationalError) and any(each in str(error.orig) for each in ("locked", "already exists"))
