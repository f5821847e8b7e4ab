"""The one place where exceptions of PyIceberg, its drivers and the storage become ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import pyarrow as pa
import pydantic
from pyiceberg.exceptions import (
    BadRequestError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchIdentifierError,
    NoSuchNamespaceError,
    NoSuchTableError,
    NotInstalledError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from requests import RequestException
from sqlalchemy.exc import InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from matih_ray.errors import (
    CommitUnknownError,
    ConfigurationError,
    SinkError,
    SinkUnavailableError,
    StorageFullError,
)
from matih_ray.sinks.iceberg.catalog import CatalogConfig

# A foreign message is evidence for a person, not a document.
MAX_DETAIL_LENGTH = 300

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNAVAILABLE = (
    CommitFailedException,  # nothing but a commit raises it, and the loop there handles it
    CommitStateUnknownException,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    RequestException,
    OperationalError,
    InterfaceError,
    PoolTimeoutError,
)
_REFUSED = (UnauthorizedError, ForbiddenError, OAuthError)
_GONE = (NoSuchTableError, NoSuchNamespaceError, NoSuchIdentifierError)
_CONFIGURATION = (NoSuchModuleError, NotInstalledError, ModuleNotFoundError, NotImplementedError)

_CERTAINLY_REFUSED = (BadRequestError, *_REFUSED, *_GONE, *_CONFIGURATION)
_MAYBE_APPLIED = (
    RESTError,
    RequestException,
    SQLAlchemyError,
    pydantic.ValidationError,  # a reply that is no reply
    ConnectionError,
    TimeoutError,
)
_FOREIGN = (
    *_CERTAINLY_REFUSED,
    *_MAYBE_APPLIED,
    CommitFailedException,
    OSError,
    pa.ArrowException,
)
# What the catalog's client may raise for a commit; plain ValueErrors are its own checks.
COMMIT_ERRORS = (*_FOREIGN, ValueError)


class CommitAnswer(Enum):
    """What an exception of a commit says about it."""

    CONFLICT = "conflict"  # not applied: what it asserted is no longer so
    REFUSED = "refused"  # not applied
    UNKNOWN = "unknown"  # may have been applied


def answer_of(error: Exception) -> CommitAnswer:
    """What one of `COMMIT_ERRORS` says. The order matters: some are subclasses of others."""
    if isinstance(error, CommitFailedException):
        return CommitAnswer.CONFLICT
    if isinstance(error, _CERTAINLY_REFUSED):
        return CommitAnswer.REFUSED
    if isinstance(error, _MAYBE_APPLIED):
        return CommitAnswer.UNKNOWN
    # the client's own checks, and a storage that did not take the metadata: nothing was sent
    return CommitAnswer.REFUSED


@contextmanager
def mapped(what: str, config: CatalogConfig) -> Iterator[None]:
    """Turn foreign exceptions of the block into ours; `what` completes 'cannot …'.

    Raises:
        StorageFullError: No space left.
        SinkUnavailableError: Catalog or storage cannot be reached now.
        ConfigurationError: A driver is missing or the catalog cannot do this.
        SinkError: Any other failure.
    """
    try:
        yield
    except _FOREIGN as error:
        # `from None`: a foreign exception may show a connection string in its traceback.
        raise translated(what, error, config) from None


def translated(
    what: str, error: Exception, config: CatalogConfig
) -> SinkError | ConfigurationError:
    """Our error for a foreign one, without secrets."""
    detail = _detail(error, config)
    if isinstance(error, _UNAVAILABLE):
        return SinkUnavailableError(f"cannot {what}: the catalog does not answer ({detail})")
    if isinstance(error, _REFUSED):
        return SinkError(f"cannot {what}: the catalog refuses the credentials ({detail})")
    if isinstance(error, _GONE):
        return SinkError(f"cannot {what}: the table is gone ({detail})")
    if isinstance(error, _CONFIGURATION):
        return ConfigurationError(f"cannot {what}: {detail}")
    if isinstance(error, OSError):
        return _storage(what, error, detail)
    return SinkError(f"cannot {what}: {detail}")


def unknown(what: str, error: Exception, config: CatalogConfig) -> CommitUnknownError:
    """The error of a commit whose outcome nobody could tell us."""
    return CommitUnknownError(
        f"{what} may or may not have been applied ({_detail(error, config)}); ask for the marker"
    )


def _storage(what: str, error: OSError, detail: str) -> SinkError:
    if error.errno in _FULL:
        return StorageFullError(
            f"cannot {what}: no space left in the warehouse; free some or add a disk, then resume"
        )
    remote = type(error) is OSError and error.errno is None  # pyarrow's, of object storage
    if remote and "ACCESS_DENIED" not in str(error):
        return SinkUnavailableError(f"cannot {what}: the storage does not answer ({detail})")
    return SinkError(f"cannot {what}: {detail}", errno=error.errno)


def _detail(error: Exception, config: CatalogConfig) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {config.redact(text)[:MAX_DETAIL_LENGTH]}"
