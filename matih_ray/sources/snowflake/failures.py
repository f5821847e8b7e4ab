"""The one place where the driver's exceptions become ours.

Numbers are those of the driver's `errorcode` module and of the service's answers; the states are
SQLSTATEs. A message is never more than its first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from snowflake.connector.errors import Error, ProgrammingError

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
    390100: AuthenticationFailedError,  # incorrect user name or password
    390101: AuthenticationFailedError,  # no such user, or disabled
    390102: AuthenticationFailedError,  # locked
    390144: AuthenticationFailedError,  # invalid JWT: another key than the user's
    390189: SourcePermissionError,  # the role does not exist or is not granted
    390422: SourcePermissionError,  # the address is not allowed by a network policy
}
# The number that a failed login has in the driver; the service's own is in its text.
_LOGIN = 250001
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"certificate|SSLError|SSL:", TlsHandshakeError),
    (r"Incorrect username or password|JWT token is invalid", AuthenticationFailedError),
    (r"role .* (not granted|does not exist)", SourcePermissionError),
    (r"timed out|timeout", SourceTimeoutError),
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
    text = str(error.msg or type(error).__name__)
    kind = _BY_NUMBER.get(error.errno or 0)
    if kind is None and not isinstance(error, ProgrammingError):
        kind = next((kind for words, kind in _BY_TEXT if re.search(words, text)), None)
    if kind is None:
        lost = not isinstance(error, ProgrammingError) or error.errno == _LOGIN
        kind = SourceUnavailableError if lost else SourceError
    return kind(f"{doing}: {text.splitlines()[0]}", errno=error.errno)
