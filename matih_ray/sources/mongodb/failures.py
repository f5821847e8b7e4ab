"""The one place where pymongo's exceptions become ours.

A server's answer has a code (MongoDB's `error_codes.yml`). A connection that could not be made has
only pymongo's text, in which the operating system's or OpenSSL's words are searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import InvalidBSON
from pymongo import errors

from matih_ray.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
    UnrepresentableValueError,
)

_BY_CODE: dict[int, type[SourceError]] = {
    11: AuthenticationFailedError,  # UserNotFound
    13: SourcePermissionError,  # Unauthorized
    18: AuthenticationFailedError,
    26: SourceChangedError,  # NamespaceNotFound
    43: SourceUnavailableError,  # CursorNotFound: idle for too long, or the server restarted
    50: SourceTimeoutError,  # MaxTimeMSExpired
    73: DatabaseNotFoundError,  # InvalidNamespace
    175: SourceChangedError,  # QueryPlanKilled: the collection was dropped while it was read
    262: SourceTimeoutError,  # ExceededTimeLimit
    8000: AuthenticationFailedError,  # AtlasError
}

# Words of the operating system, of OpenSSL and of pymongo, the most telling first.
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"Name or service not known|nodename nor servname|getaddrinfo", DnsResolutionError),
    (r"name resolution|No address associated", DnsResolutionError),
    (r"SSL|certificate|TLS", TlsHandshakeError),
    (r"Connection refused|No route to host|unreachable", ConnectionRefusedByHostError),
    (r"timed out|No servers found yet", SourceTimeoutError),
)
# OpenSSL's words for why a certificate is refused, and the numbers behind them (X509_V_ERR_…),
# which pymongo drops.
_VERIFY_CODES = {
    "certificate is not yet valid": 9,
    "certificate has expired": 10,
    "self-signed certificate in certificate chain": 19,
    "self-signed certificate": 18,
    "unable to get local issuer certificate": 20,
    "unable to get issuer certificate": 2,
    "Hostname mismatch": 62,
    "IP address mismatch": 64,
}
# What an error text of a server or of pymongo is cut at: what follows quotes the command, which may
# hold values, or lists the topology.
_DETAIL = re.compile(r" to execute command|, full error:|, Timeout: | \(configured timeouts")
MAX_TEXT_CHARS = 300


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let pymongo's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except errors.PyMongoError as error:
        raise typed(error, doing) from None
    except InvalidBSON:
        raise UnrepresentableValueError(
            f"{doing}: a document is not valid BSON, such as text that is not UTF-8; repair it"
        ) from None


def typed(error: errors.PyMongoError, doing: str) -> SourceError | ConfigurationError:
    """Our error for one of pymongo's."""
    text = _short(error)
    if isinstance(error, errors.OperationFailure):
        kind = _BY_CODE.get(error.code or 0, SourceError)
        if error.has_error_label("RetryableReadError"):
            kind = SourceUnavailableError
        return kind(f"{doing}: {text}", mongo_code=error.code)
    if isinstance(error, errors.NetworkTimeout | errors.ExecutionTimeout):
        return SourceTimeoutError(f"{doing}: {text}")
    if isinstance(error, errors.ConnectionFailure):
        return _unconnected(str(error), f"{doing}: {text}")
    if isinstance(error, errors.ConfigurationError | errors.InvalidURI):
        return ConfigurationError(f"{doing}: {text}")
    return SourceError(f"{doing}: {text}")


def _unconnected(text: str, message: str) -> SourceError:
    """The error for a connection that could not be made or was lost."""
    kind = next((kind for pattern, kind in _BY_TEXT if re.search(pattern, text)), None)
    if kind is not TlsHandshakeError:
        return (kind or SourceUnavailableError)(message)
    code = next((code for words, code in _VERIFY_CODES.items() if words in text), None)
    return TlsHandshakeError(message, verify_code=code)


def _short(error: errors.PyMongoError) -> str:
    return _DETAIL.split(str(error), maxsplit=1)[0][:MAX_TEXT_CHARS]
