"""The one place where the client's exceptions become ours.

Reasons are those of https://cloud.google.com/bigquery/docs/error-messages; a reason says more than
the status that it comes with: 403 may be a missing right or a full quota.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from requests.exceptions import RequestException

from matih_ray.errors import (
    AuthenticationFailedError,
    DatabaseNotFoundError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
)
from matih_ray.sources.guarded_requests import unanswered

MAX_TEXT_CHARS = 300
# The client puts the request in front of what the service says, and its own remarks below.
_REQUEST = re.compile(r"^[A-Z]+ \S+: ")
_BY_REASON: dict[str, type[SourceError]] = {
    "accessDenied": SourcePermissionError,
    "backendError": SourceUnavailableError,
    "billingNotEnabled": SourceRejectedError,
    "bytesBilledLimitExceeded": SourceRejectedError,
    "internalError": SourceUnavailableError,
    "jobBackendError": SourceUnavailableError,
    "jobInternalError": SourceUnavailableError,
    "jobRateLimitExceeded": SourceUnavailableError,
    "quotaExceeded": SourceUnavailableError,
    "rateLimitExceeded": SourceUnavailableError,
    "tableUnavailable": SourceUnavailableError,
    "timeout": SourceTimeoutError,
}
_BY_KIND: tuple[tuple[type[GoogleAPICallError], type[SourceError]], ...] = (
    (Unauthorized, AuthenticationFailedError),
    (Forbidden, SourcePermissionError),
    (NotFound, DatabaseNotFoundError),
    (TooManyRequests, SourceUnavailableError),
    (ServerError, SourceUnavailableError),
)
# An invalid query is ours, unless a column has gone since it was planned.
_GONE = re.compile(r"Unrecognized name")
_PARTITION = re.compile(r"without a filter over column")


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let the client's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except GoogleAPICallError as error:
        raise _answered(error, doing) from None
    except TransportError as error:
        raise unanswered(error, doing) from None
    except GoogleAuthError:
        raise AuthenticationFailedError(
            f"{doing}: Google does not accept the credential, or it has expired"
        ) from None
    except (GoogleAPIError, RequestException, ConnectionError) as error:
        raise unanswered(error, doing) from None


def _answered(error: GoogleAPICallError, doing: str) -> SourceError:
    lines = _REQUEST.sub("", str(error.message)).splitlines()
    text = lines[0][:MAX_TEXT_CHARS] if lines else type(error).__name__
    if _PARTITION.search(text):
        return SourceRejectedError(
            f"{doing}: the table must be filtered by its partition column; set cursorColumn to it",
            status=error.code,
        )
    kind = SourceChangedError if _GONE.search(text) else _kind(error)
    return kind(f"{doing}: {text}", status=error.code)


def _kind(error: GoogleAPICallError) -> type[SourceError]:
    for reason in [item.get("reason") for item in error.errors if isinstance(item, dict)]:
        if reason in _BY_REASON:
            return _BY_REASON[reason]
    return next((kind for class_, kind in _BY_KIND if isinstance(error, class_)), SourceError)
