"""The one place where the client's exceptions become ours.

A failed statement says its error class in brackets, as in `[TABLE_OR_VIEW_NOT_FOUND]`
(https://docs.databricks.com/error-messages/error-classes); a refused request has an HTTP status.
A message is never more than its beginning.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from databricks.sql.exc import DataError, Error, MaxRetryDurationError, RequestError
from urllib3.exceptions import HTTPError, SSLError
from urllib3.exceptions import TimeoutError as HttpTimeoutError

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

MAX_TEXT_CHARS = 300
# An exception holds the one before it, a handful at most.
_MAX_CAUSES = 20

_BY_CLASS: dict[str, type[SourceError]] = {
    "CATALOG_NOT_FOUND": DatabaseNotFoundError,
    "NO_SUCH_CATALOG_EXCEPTION": DatabaseNotFoundError,
    "FIELD_NOT_FOUND": SourceChangedError,
    "SCHEMA_NOT_FOUND": SourceChangedError,
    "TABLE_OR_VIEW_NOT_FOUND": SourceChangedError,
    "UNRESOLVED_COLUMN": SourceChangedError,
    "INSUFFICIENT_PERMISSIONS": SourcePermissionError,
    "PERMISSION_DENIED": SourcePermissionError,
    "UNAUTHORIZED_ACCESS": SourcePermissionError,
    "OPERATION_CANCELED": SourceUnavailableError,
    "STATEMENT_TIMEOUT": SourceTimeoutError,
}
_CLASS = re.compile(r"\[([A-Z_]+)(?:\.[A-Z_]+)*\]")
# What a warehouse says of a session that has ended, or that it opened before it had started.
_NO_SESSION = "Session handle.* has not been initialized or had already closed"
# Unity Catalog's own errors come without brackets.
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"PERMISSION_DENIED|does not have (permission|privilege|USE)", SourcePermissionError),
    (r"Catalog .* (was not found|does not exist)", DatabaseNotFoundError),
    (r"timed out", SourceTimeoutError),
    (r"Invalid (Session|Operation)Handle", SourceUnavailableError),
    (_NO_SESSION, SourceUnavailableError),
)
_BY_STATUS: dict[int, type[SourceError]] = {
    400: SourceRejectedError,
    401: AuthenticationFailedError,
    403: SourcePermissionError,
}
_REMEDIES: dict[int, str] = {
    401: "the workspace does not accept the token",
    403: "the token has no right to use this warehouse",
    404: "there is no such warehouse (httpPath), or no longer such a session",
}

# In this order: to urllib3 a refused connection is a kind of time-out.
_BY_CAUSE: tuple[tuple[tuple[type[BaseException], ...], type[SourceError], str], ...] = (
    ((socket.gaierror,), DnsResolutionError, "the host has no address any more"),
    ((ConnectionRefusedError,), ConnectionRefusedByHostError, "connection refused"),
    ((SSLError, ssl.SSLError), TlsHandshakeError, "the certificate is not accepted"),
    ((HttpTimeoutError, TimeoutError), SourceTimeoutError, "no answer in time"),
)


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let the client's errors leave as ours; `doing` opens the message."""
    try:
        yield
    except (Error, HTTPError) as error:
        raise typed(error, doing) from None


def typed(
    error: BaseException, doing: str, missing: type[SourceError] = SourceUnavailableError
) -> MatihError:
    """Our error for one of the client's; `missing` is the one for what is not there: a session that
    has ended, unless it is just to be opened."""
    inside = _causes(error)
    for cause in inside:
        if isinstance(cause, MatihError):  # of ours, from getting a token
            return cause
    for kinds, ours, says in _BY_CAUSE:
        if any(isinstance(cause, kinds) for cause in inside):
            return ours(f"{doing}: {says}")
    if is_starting(error):
        return SourceUnavailableError(f"{doing}: the warehouse is starting, or has too much to do")
    status = _status(inside)
    if status is not None:
        return _of_status(status, inside, doing, missing)
    if isinstance(error, HTTPError | RequestError | DataError):  # DataError: an answer was lost
        return SourceUnavailableError(f"{doing}: {_text(error)}")
    return _of_statement(_text(error), doing)


def is_starting(error: BaseException) -> bool:
    """Whether the warehouse asks to come back later, as it does while it starts."""
    inside = _causes(error)
    if any(isinstance(cause, OSError | HttpTimeoutError) for cause in inside):
        return False
    # the client gives up at once, because our session asks it not to wait by itself
    waits = any(isinstance(cause, MaxRetryDurationError) for cause in inside)
    return (
        waits or _status(inside) in (429, 503) or re.search(_NO_SESSION, _text(error)) is not None
    )


def _of_status(
    status: int, inside: list[BaseException], doing: str, missing: type[SourceError]
) -> SourceError:
    said = next(
        (
            str(cause.context["error-message"])
            for cause in inside
            if isinstance(cause, Error) and cause.context.get("error-message")
        ),
        "",
    )
    kind = missing if status == 404 else _BY_STATUS.get(status, SourceUnavailableError)
    if status == 403 and "token" in said.lower():
        kind = AuthenticationFailedError
    parts = (f"status {status}", _REMEDIES.get(status, ""), said.strip(": ")[:MAX_TEXT_CHARS])
    return kind(f"{doing}: {'; '.join([part for part in parts if part])}", status=status)


def _of_statement(text: str, doing: str) -> SourceError:
    match = _CLASS.match(text)
    kind = None if match is None else _BY_CLASS.get(match[1])
    if kind is None:
        kind = next((kind for words, kind in _BY_TEXT if re.search(words, text)), SourceError)
    return kind(f"{doing}: {text}")


def _status(inside: list[BaseException]) -> int | None:
    """The HTTP status of a refused request. Failed statements come with 200."""
    for cause in inside:
        status = cause.context.get("http-code") if isinstance(cause, Error) else None
        if isinstance(status, int) and status != 200:
            return status
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and all that it came from, outermost first."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(found) < _MAX_CAUSES:
        cause = waiting.pop(0)
        if cause not in found:
            found.append(cause)
            held = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
            waiting += [inner for inner in held if isinstance(inner, BaseException)]
    return found


def _text(error: BaseException) -> str:
    text = str(error.args[0]) if error.args and error.args[0] else type(error).__name__
    return " ".join(text.split())[:MAX_TEXT_CHARS]
