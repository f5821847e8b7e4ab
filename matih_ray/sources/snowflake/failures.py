"""The one place where the driver's exceptions become ours.

Numbers are those of the service's answers, which the driver hands on, and of the driver's own
`errorcode` module. The service lists its numbers nowhere in public: here are those of the driver's
`network` module and those that its users have shown, and texts for what has more than one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from snowflake.connector.errors import Error, NonRetryableTlsError, ProgrammingError
from snowflake.connector.network import CREDENTIAL_REJECTION_GS_CODES

from matih_ray.errors import (
    AuthenticationFailedError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

_BY_NUMBER: dict[int, type[SourceError]] = {
    604: SourceTimeoutError,  # cancelled, and not by us
    630: SourceTimeoutError,  # STATEMENT_TIMEOUT_IN_SECONDS
    904: SourceChangedError,  # invalid identifier: a column is gone
    2003: SourceChangedError,  # the object does not exist or is not authorized
    2043: SourceChangedError,  # the object does not exist
    3001: SourcePermissionError,
    390189: SourcePermissionError,  # the role does not exist or is not granted
    390201: SourcePermissionError,  # the warehouse does not exist or may not be used
    390422: SourcePermissionError,  # the address is not allowed by a network policy
    # a wrong password, and a key or its token in all ways in which it can be wrong
    **{int(code): AuthenticationFailedError for code in CREDENTIAL_REJECTION_GS_CODES},
}
MAX_TEXT_CHARS = 300
# The number that a failed login has in the driver; the service's own is in its text.
_LOGIN = 250001
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"certificate|SSLError|SSL:", TlsHandshakeError),
    (r"[Ii]ncorrect username or password|JWT token is invalid", AuthenticationFailedError),
    (r"User access disabled|user account has been temporarily locked", AuthenticationFailedError),
    (r"[Rr]ole .*(not granted|does not exist|not authorized)", SourcePermissionError),
    (r"not allowed to access Snowflake", SourcePermissionError),
    # it took the connection, which was tried first, and did not answer a login
    (r"timed out|timeout|Could not connect to Snowflake backend", SourceTimeoutError),
)


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let the driver's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except Error as error:
        raise typed(error, doing) from None


def typed(error: Error, doing: str) -> SourceError:
    """Our error for one of the driver's."""
    text = " ".join(str(error.msg or type(error).__name__).split())
    return _kind(error, text)(f"{doing}: {text[:MAX_TEXT_CHARS]}", errno=error.errno)


def _kind(error: Error, text: str) -> type[SourceError]:
    if isinstance(error, NonRetryableTlsError):
        return TlsHandshakeError
    known = _BY_NUMBER.get(error.errno or 0)
    if known is None and not isinstance(error, ProgrammingError):
        known = next((kind for words, kind in _BY_TEXT if re.search(words, text)), None)
    if known is not None:
        return known
    lost = not isinstance(error, ProgrammingError) or error.errno == _LOGIN
    return SourceUnavailableError if lost else SourceError
