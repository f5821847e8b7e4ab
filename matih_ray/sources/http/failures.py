"""The one place where httpx's exceptions and HTTP's status codes become our errors.

Messages name method, host and path. They have no query and no text of the server, because an API
may repeat a credential in either.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

_BY_STATUS: dict[int, tuple[type[SourceError], str]] = {
    401: (AuthenticationFailedError, "the credentials are not accepted; check auth and secrets"),
    403: (SourcePermissionError, "the credentials lack a permission; let the API's owner grant it"),
    404: (DatabaseNotFoundError, "there is nothing at this address; check base address and path"),
    408: (SourceTimeoutError, "the server gave up waiting"),
    410: (DatabaseNotFoundError, "what was at this address is gone; check base address and path"),
    429: (SourceUnavailableError, "too many requests; lower limits.requestsPerS"),
    504: (SourceTimeoutError, "the server's own back end did not answer in time"),
}
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
# 403 only with Retry-After: some APIs refuse so when too much was asked.
WAITING_STATUSES = frozenset({403, 429, 503})
# The answer broke off, or did not come; the same request again may do better.
RETRIED_ERRORS = (httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout, httpx.WriteError)


def shown(url: str | httpx.URL) -> str:
    """A URL for people: scheme, host and path."""
    parts = urlsplit(str(url))
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def of_status(status: int, doing: str, retry_after_s: float | None) -> SourceError:
    """Our error for a status that is no success."""
    kind, remedy = _BY_STATUS.get(status, (None, ""))
    if kind is None and status >= 500:
        kind, remedy = SourceUnavailableError, "the server failed; try again later"
    if kind is None:
        kind, remedy = SourceRejectedError, "the API refuses the request; check the stream"
    if status == 403 and retry_after_s is not None:
        kind, remedy = _BY_STATUS[429]
    return kind(f"{doing}: status {status}: {remedy}", status=status, retry_after_s=retry_after_s)


def of_exception(error: Exception, doing: str) -> SourceError:
    """Our error for one of httpx's."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return DnsResolutionError(f"{doing}: the host is not known here; check its spelling")
        if isinstance(cause, ssl.SSLError):
            code = getattr(cause, "verify_code", None)
            reason = getattr(cause, "verify_message", None) or cause.reason or "handshake failed"
            return TlsHandshakeError(f"{doing}: TLS: {reason}", verify_code=code)
    if isinstance(error, httpx.TimeoutException):
        return SourceTimeoutError(f"{doing}: no answer in time")
    if isinstance(error, httpx.ConnectError):
        return ConnectionRefusedByHostError(
            f"{doing}: no connection; verify host and port, and that the server is running"
        )
    if isinstance(error, httpx.DecodingError):
        return SourceError(f"{doing}: the answer's compression is broken")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return SourceRejectedError(f"{doing}: not an address of HTTP")
    return SourceUnavailableError(f"{doing}: the connection broke off ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from. A chain is as short as the layers of httpx."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__
