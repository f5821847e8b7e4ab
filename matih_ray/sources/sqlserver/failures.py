"""The one place where the driver's exceptions become ours. The server's error number decides.

Numbers are those of "Database Engine events and errors"; from 40000 on they are Azure SQL's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytds

from matih_ray.errors import (
    AuthenticationFailedError,
    DatabaseNotFoundError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    UnrepresentableValueError,
)

_BY_NUMBER: dict[int, type[SourceError]] = {
    18452: AuthenticationFailedError,  # a login of another domain
    18456: AuthenticationFailedError,
    18470: AuthenticationFailedError,  # the account is disabled
    18486: AuthenticationFailedError,  # the account is locked
    18487: AuthenticationFailedError,  # the password has expired
    18488: AuthenticationFailedError,  # the password must be changed
    911: DatabaseNotFoundError,
    4060: DatabaseNotFoundError,
    207: SourceChangedError,  # invalid column name
    208: SourceChangedError,  # invalid object name
    229: SourcePermissionError,  # on an object
    230: SourcePermissionError,  # on a column
    262: SourcePermissionError,
    300: SourcePermissionError,
    916: SourcePermissionError,  # the login is no user of the database
    40615: SourcePermissionError,  # a firewall's rule
    1222: SourceTimeoutError,  # LOCK_TIMEOUT
    701: SourceUnavailableError,  # out of memory
    1205: SourceUnavailableError,  # chosen as the victim of a deadlock
    3960: SourceUnavailableError,  # a snapshot met a change
    10928: SourceUnavailableError,  # limits of Azure SQL
    10929: SourceUnavailableError,
    40197: SourceUnavailableError,  # the service is being moved
    40501: SourceUnavailableError,  # the service is busy
    40613: SourceUnavailableError,  # the database is not there now
    49918: SourceUnavailableError,
}
# The server says it before it refuses the login, whose number is the one that remains.
_NO_DATABASE = "Cannot open database"


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let the driver's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except pytds.Error as error:
        raise typed(error, doing) from None
    except UnicodeDecodeError:
        raise UnrepresentableValueError(
            f"{doing}: a text is not valid UTF-16; correct it, or make a view without it"
        ) from None


def typed(error: pytds.Error, doing: str) -> SourceError:
    """Our error for one of the driver's."""
    number = error.number if isinstance(error, pytds.DatabaseError) else 0
    text = next(iter(str(error.args[0] if error.args else error).splitlines()), "")
    kind = DatabaseNotFoundError if _NO_DATABASE in text else _BY_NUMBER.get(number)
    if kind is None:
        # what has no number is the driver's own: the connection is gone or not understood
        kind = SourceError if number else SourceUnavailableError
    return kind(f"{doing}: {text or type(error).__name__}", errno=number)
