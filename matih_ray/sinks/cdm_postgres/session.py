"""Connections, and the one place where psycopg2's errors become ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from matih_ray.errors import SchemaMismatchError, SinkError, SinkUnavailableError, StorageFullError
from matih_ray.sinks.cdm_postgres.config import Place

CONNECT_TIMEOUT_S = 10
# A commit waits for others of the same stream, and DDL for commits: both take seconds, not minutes.
LOCK_TIMEOUT_MS = 60_000
# COPY is fed in pieces of this size: few calls, and the server parses one while the next is sent.
COPY_PIECE_BYTES = 1 << 18
APPLICATION_NAME = "matih-ray"

_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
# Otherwise libpq would look for passwords of this machine's account. A path that cannot exist.
_NO_PASSWORD_FILE = f"{os.devnull}/none"
_SETTINGS = f"""
    SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET standard_conforming_strings = on;
    SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET jit = off;
    SET lock_timeout = {LOCK_TIMEOUT_MS}
"""

# Exact states first, then classes, of PostgreSQL's "Appendix A".
_BY_STATE: dict[str, type[SinkError]] = {
    "53100": StorageFullError,
    "42701": SchemaMismatchError,
    "42703": SchemaMismatchError,
    "42804": SchemaMismatchError,
    "55P03": SinkUnavailableError,  # lock not available
    "57014": SinkUnavailableError,  # cancelled, and not by us
    "40001": SinkUnavailableError,
    "40P01": SinkUnavailableError,  # deadlock
    "08": SinkUnavailableError,
    "53": SinkUnavailableError,  # connections, memory, locks
    "57": SinkUnavailableError,  # shutting down, starting up
}

Row = tuple[Any, ...]


class Session:
    """One connection in autocommit mode. Not thread-safe."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def rows(self, statement: sql.Composable | str, values: object = None) -> list[Row]:
        """Run one or more statements and return the rows of the last, if it has any."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def copy(self, statement: sql.Composable, file: object) -> None:
        """Run a COPY FROM STDIN with the file's bytes."""
        with self.connection.cursor() as cursor:
            cursor.copy_expert(statement, file, COPY_PIECE_BYTES)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that is committed at the end of the block and rolled back by exceptions."""
        self.rows("BEGIN")
        try:
            yield
        except BaseException:
            if not self.is_lost:
                self.rows("ROLLBACK")
            raise
        self.rows("COMMIT")

    @property
    def is_lost(self) -> bool:
        """The connection cannot be used any more."""
        return bool(self.connection.closed)

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self.connection.close()


class Sessions:
    """Keeps one connection of a sink object, opened when first needed."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._session: Session | None = None

    def get(self) -> Session:
        """The connection, or a new one if the server has closed it meanwhile.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SinkUnavailableError: The server cannot be reached.
            SinkError: It refuses the login.
        """
        if self._session is not None and not _answers(self._session):
            self._session.close()
            self._session = None
        if self._session is None:
            self._session = self._open()
        return self._session

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self) -> Session:
        login = self._place.login
        # libpq connects to these and goes on checking certificates by the name
        addresses = self._place.resolve(login.host, login.port)
        doing = f"connect to {login.address}"
        with mapped(doing):
            connection = psycopg2.connect(
                host=",".join([login.host] * max(1, len(addresses))),
                hostaddr=",".join(map(str, addresses)) or None,
                port=login.port,
                dbname=login.database,
                user=login.user,
                password=login.password,
                passfile=_NO_PASSWORD_FILE,
                application_name=APPLICATION_NAME,
                client_encoding="UTF8",
                **{"connect_timeout": CONNECT_TIMEOUT_S, **_KEEPALIVES, **dict(login.parameters)},
            )
            connection.autocommit = True
            session = Session(connection)
            session.rows(_SETTINGS)
        return session


def _answers(session: Session) -> bool:
    try:
        session.rows("SELECT 1")
    except psycopg2.Error:
        return False
    return not session.is_lost


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Let psycopg2's errors leave as ours; `doing` completes 'cannot …'.

    Raises:
        StorageFullError: No space left.
        SinkUnavailableError: The server cannot be reached now.
        SchemaMismatchError: A column is missing or has another type.
        SinkError: Any other failure.
    """
    try:
        yield
    except psycopg2.Error as error:
        # `from None`: a foreign traceback may show the connection string
        raise translated(doing, error) from None


def translated(doing: str, error: psycopg2.Error) -> SinkError:
    """Our error for one of psycopg2's."""
    state: str | None = error.pgcode
    if state is None:
        # a connection that could not be made, or was lost; or psycopg2 was misused
        lost = isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
        lost = lost or type(error) is psycopg2.DatabaseError
        kind = SinkUnavailableError if lost and "FATAL" not in str(error) else SinkError
        return kind(f"cannot {doing}: {_first_line(error)}")
    kind = _BY_STATE.get(state) or _BY_STATE.get(state[:2]) or SinkError
    # the primary message only: detail and context lines may quote rows
    return kind(f"cannot {doing}: {error.diag.message_primary}", sqlstate=state)


def _first_line(error: psycopg2.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rpartition("FATAL:")[2].strip() if lines else type(error).__name__
