"""The one place where PyMySQL's exceptions become ours. The server's error number decides.

Numbers under 2000 and from 3000 on are the server's (MySQL's "Server Error Message Reference",
MariaDB's "Error Codes"), those between are the client's.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql

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

ACCESS_DENIED_NEEDS_PRIVILEGE = 1227

_BY_NUMBER: dict[int, type[SourceError]] = {
    1044: SourcePermissionError,  # no right on the database, or it does not exist for this account
    1045: AuthenticationFailedError,
    1130: AuthenticationFailedError,  # this host may not connect
    1251: AuthenticationFailedError,  # authentication protocol
    1524: AuthenticationFailedError,  # authentication plugin not loaded
    1698: AuthenticationFailedError,
    1820: AuthenticationFailedError,  # password expired
    1862: AuthenticationFailedError,  # password expired
    2059: AuthenticationFailedError,  # authentication plugin unknown to the client
    3118: AuthenticationFailedError,  # account locked, MySQL
    4151: AuthenticationFailedError,  # account locked, MariaDB
    1049: DatabaseNotFoundError,
    1142: SourcePermissionError,  # command denied on a table
    1143: SourcePermissionError,  # command denied on a column
    1227: SourcePermissionError,
    1345: SourcePermissionError,  # EXPLAIN or SHOW of a view
    1370: SourcePermissionError,  # routine behind a view
    1356: SourceRejectedError,  # view with invalid references, or whose definer lacks rights
    1054: SourceChangedError,  # unknown column
    1146: SourceChangedError,  # no such table
    1412: SourceChangedError,  # definition has changed
    1205: SourceTimeoutError,  # lock wait
    1317: SourceTimeoutError,  # query interrupted, and not by us
    1969: SourceTimeoutError,  # max_statement_time, MariaDB
    3024: SourceTimeoutError,  # max_execution_time, MySQL
    1040: SourceUnavailableError,  # too many connections
    1053: SourceUnavailableError,  # shutdown
    1129: SourceUnavailableError,  # host blocked after many errors
    1203: SourceUnavailableError,  # too many connections of the account
    1213: SourceUnavailableError,  # deadlock
    1226: SourceUnavailableError,  # the account's resource limit
    1927: SourceUnavailableError,  # connection was killed
    2006: SourceUnavailableError,
    2013: SourceUnavailableError,
    2055: SourceUnavailableError,
    2003: ConnectionRefusedByHostError,
    2005: DnsResolutionError,
    2026: TlsHandshakeError,
    3159: TlsHandshakeError,  # require_secure_transport, MySQL
    4208: TlsHandshakeError,  # require_secure_transport, MariaDB
}


# What PyMySQL raises, unintended, when it takes a greeting apart that is not of its protocol; and,
# with a RuntimeError, when a server asks for a file of ours, which it never gets.
BROKEN_PROTOCOL = (
    AssertionError, IndexError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let PyMySQL's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except pymysql.Error as error:
        raise typed(error, doing) from None


def typed(error: pymysql.Error, doing: str) -> SourceError:
    """Our error for one that PyMySQL raised."""
    number, text = error_number(error), _text(error)
    if number is None:
        # PyMySQL's own complaint: it raises one when a connection that was lost is used again.
        lost = isinstance(error, pymysql.err.InterfaceError)
        return (SourceUnavailableError if lost else SourceError)(f"{doing}: {text}")
    kind = _BY_NUMBER.get(number, SourceError)
    if number == 2013 and "timed out" in text:
        kind = SourceTimeoutError
    return kind(f"{doing}: {text}", number=number)


def connection_failure(error: Exception, address: str) -> SourceError:
    """Our error for a connection that could not be made: PyMySQL's, or the operating system's."""
    doing = f"cannot connect to {address}"
    cause = getattr(error, "original_exception", error)
    if isinstance(cause, socket.gaierror) or type(cause) is UnicodeError:  # as of a label too long
        return DnsResolutionError(f"{doing}: the host name is not known")
    if isinstance(cause, ssl.SSLError):
        verify_code = getattr(cause, "verify_code", None)
        return TlsHandshakeError(f"{doing}: {cause}", verify_code=verify_code)
    if isinstance(cause, TimeoutError):
        return SourceTimeoutError(f"{doing}: no answer in time")
    if isinstance(cause, pymysql.Error):
        return typed(cause, doing)
    if isinstance(cause, BROKEN_PROTOCOL):
        return SourceError(f"{doing}: what answers there does not keep to MySQL's protocol")
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return SourceUnavailableError(f"{doing}: {cause}")
    return ConnectionRefusedByHostError(f"{doing}: {cause}")


def error_number(error: pymysql.Error) -> int | None:
    """The number of an error; None for PyMySQL's own complaints."""
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) and number else None


def _text(error: pymysql.Error) -> str:
    return str(error.args[-1]) if error.args and error.args[-1] else type(error).__name__
