"""Errors of object stores. Arrow reports them as `OSError` with a text that names AWS's or curl's
code; nothing better exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

# In the order of precedence: the first pattern that occurs decides. curl's codes are those of
# https://curl.se/libcurl/c/libcurl-errors.html
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (
        (
            r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch|"
            r"SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|InvalidClientTokenId|InvalidToken|"
            r"ExpiredToken|HTTP status 401"
        ),
        AuthenticationFailedError,
    ),
    (r"NO_SUCH_BUCKET|NoSuchBucket", DatabaseNotFoundError),
    (r"ACCESS_DENIED|AccessDenied|HTTP status 403", SourcePermissionError),
    (r"curlCode: 6\b|curlCode: 5\b", DnsResolutionError),
    (r"curlCode: 28\b|REQUEST_TIMEOUT", SourceTimeoutError),
    (r"curlCode: (35|51|53|54|58|59|60|64|66|77|80|82|83|90|91)\b", TlsHandshakeError),
    (r"curlCode: 7\b", ConnectionRefusedByHostError),
    (r"SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|NETWORK_CONNECTION", SourceUnavailableError),
    (r"HTTP status 5\d\d|curlCode: \d+", SourceUnavailableError),
)
_MAX_MESSAGE_CHARACTERS = 400


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let Arrow's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except FileNotFoundError as error:
        if re.search("bucket|Bucket", str(error)):
            raise DatabaseNotFoundError(f"{doing}: {_line(error)}") from None
        raise SourceChangedError(f"{doing}: a file is gone; start a new run") from None
    except pa.ArrowInvalid as error:
        raise SourceRejectedError(f"{doing}: the file is damaged: {_line(error)}") from None
    except OSError as error:
        raise typed(error, doing) from None


def typed(error: OSError, doing: str) -> SourceError:
    """Our error for one of Arrow's."""
    text = str(error)
    for pattern, kind in _BY_TEXT:
        if re.search(pattern, text):
            return kind(f"{doing}: {_line(error)}")
    return SourceError(f"{doing}: {_line(error)}")


def _line(error: Exception) -> str:
    line = (str(error).splitlines() or ["no reason given"])[0]
    # what Arrow says after the numbers of columns is the row itself
    return re.sub(r"(Expected \d+ columns, got \d+).*", r"\1", line)[:_MAX_MESSAGE_CHARACTERS]
