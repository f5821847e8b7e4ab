"""The one place where psycopg2's exceptions become ours.

After login, SQLSTATE decides. During connection psycopg2 exposes no SQLSTATE, only libpq's text,
so that text is searched; a server that reports in another language than English (`lc_messages`)
is recognised as unavailable only, not by its exact cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from matih_ray.errors import (
    AuthenticationFailedError,
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

# Exact states first, then classes (first two characters), of PostgreSQL's "Appendix A".
_BY_STATE: dict[str, type[SourceError]] = {
    "22021": UnrepresentableValueError,  # bytes that are not UTF-8, in a SQL_ASCII database
    "22P05": UnrepresentableValueError,  # a character that UTF-8 has no code for
    "28000": AuthenticationFailedError,
    "28P01": AuthenticationFailedError,
    "3D000": DatabaseNotFoundError,
    "42501": SourcePermissionError,
    "42P01": SourceChangedError,  # undefined table
    "42703": SourceChangedError,  # undefined column
    "3F000": SourceChangedError,  # undefined schema
    "55P03": SourceTimeoutError,  # lock not available within lock_timeout
    "57014": SourceTimeoutError,  # query cancelled, and not by us
    "57P01": SourceUnavailableError,  # admin shutdown
    "57P02": SourceUnavailableError,  # crash shutdown
    "57P03": SourceUnavailableError,  # cannot connect now
    "40001": SourceUnavailableError,  # conflict with recovery on a standby
    "40P01": SourceUnavailableError,  # deadlock
    "08": SourceUnavailableError,
    "53": SourceUnavailableError,  # too many connections, out of memory or disk
    "57": SourceUnavailableError,
}

# libpq's and the server's words while connecting. Order matters: with sslmode=prefer one text
# holds the reports of two attempts, and the more telling one must win.
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"could not translate host name", DnsResolutionError),
    (r"password authentication failed|no password supplied", AuthenticationFailedError),
    (r"role \".*\" does not exist|is not permitted to log in", AuthenticationFailedError),
    (
        r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects",
        AuthenticationFailedError,
    ),
    (r"database \".*\" does not exist", DatabaseNotFoundError),
    (r"permission denied", SourcePermissionError),
    (r"does not support SSL|SSL error|certificate|SSL SYSCALL|SSL connection", TlsHandshakeError),
    (r"timeout expired|timed out", SourceTimeoutError),
    (r"Connection refused|No route to host|unreachable|No such file", ConnectionRefusedByHostError),
)


class RefusedStatementError(Exception):
    """What a server said to a statement that went past psycopg2; no other code meets it."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state
        self.message = message


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let psycopg2's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except psycopg2.Error as error:
        raise typed(error, doing) from None
    except RefusedStatementError as error:
        raise _of_state(error.state, error.message, doing) from None


def typed(error: psycopg2.Error, doing: str) -> SourceError:
    """Our error for one that psycopg2 raised on an open connection."""
    state: str | None = error.pgcode
    if state is None:
        # What the server reports has a state. The rest is libpq: the connection is gone (a lost
        # one during COPY is a plain DatabaseError), or psycopg2 itself was misused.
        misused = isinstance(error, psycopg2.ProgrammingError)
        kind = SourceError if misused else SourceUnavailableError
        return kind(f"{doing}: the connection failed: {_first_line(error)}")
    # The primary message only: detail and context lines may quote rows.
    return _of_state(state, error.diag.message_primary, doing)


def _of_state(state: str, message: str, doing: str) -> SourceError:
    kind = _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or SourceError
    return kind(f"{doing}: {message}", sqlstate=state)


def connection_failure(error: psycopg2.Error, address: str) -> SourceError:
    """Our error for a connection that could not be made."""
    text = str(error)
    for pattern, kind in _BY_TEXT:
        if re.search(pattern, text):
            return kind(f"cannot connect to {address}: {_reason(text, pattern)}")
    return SourceUnavailableError(f"cannot connect to {address}: {_first_line(error)}")


def _reason(text: str, pattern: str) -> str:
    line = next((line for line in text.splitlines() if re.search(pattern, line)), text)
    return line.rpartition("FATAL:")[2].strip()


def _first_line(error: psycopg2.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
