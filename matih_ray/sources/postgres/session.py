"""Connections: opened with settings under which text output is exact, reused within one source."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql

from matih_ray.errors import SourceChangedError
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.postgres.config import LoginConfig, PostgresConfig
from matih_ray.sources.postgres.failures import connection_failure, mapped_errors

# How our sessions are recognised among the open transactions of a server.
APPLICATION_NAME = "matih-ray"

# Probes start after 30 s of silence: shorter than the idle limits of common firewalls. A dead
# peer is noticed 30 s later.
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

# Text output that loses nothing and does not depend on the role's or the database's defaults.
# `lc_monetary` and `search_path` stay as they are: the first decides what a stored `money` means,
# and functions behind views may need the second.
TEXT_OUTPUT = """
    SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';
    SET intervalstyle = 'iso_8601'; SET extra_float_digits = 3; SET bytea_output = 'hex';
    SET xmloption = 'content';
"""

# Slices are the parallelism: a COPY that starts workers of its own or compiles its plan costs both
# cores more than it saves (measured on lineitem).
_SETTINGS = sql.SQL(
    TEXT_OUTPUT
    + """
    SET statement_timeout = 0;
    SET idle_in_transaction_session_timeout = 0; SET lock_timeout = {lock_timeout_ms};
    SET jit = off; SET max_parallel_workers_per_gather = 0;
    """
)

# Without it libpq would look for passwords that belong to this machine's account, not to the
# connector. A path that cannot exist, because libpq warns about the null device itself.
_NO_PASSWORD_FILE = f"{os.devnull}/none"

# For a slice that is a range: without this, slices of a tenth of a table are read by scanning the
# whole table ten times, because the planner takes a cold disk for granted. Where no index fits the
# range it changes nothing.
RANGE_SCAN = "SET LOCAL enable_seqscan = off"

Row = tuple[Any, ...]


class Session:
    """One connection in autocommit mode. Not thread-safe."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def rows(self, statement: sql.Composable | str) -> list[Row]:
        """Run one or more statements and return the rows of the last."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def row(self, statement: sql.Composable | str) -> Row:
        """Run a statement that returns exactly one row."""
        (row,) = self.rows(statement)
        return row

    @contextmanager
    def reading(self, snapshot: str | None = None) -> Iterator[None]:
        """A read-only transaction; inside the exported snapshot of that name, if one is given.

        Without one, each statement sees what was committed when it began, which for a slice's
        single COPY is a consistent state.

        Raises:
            SourceChangedError: The snapshot is gone: whoever held it has ended.
        """
        self.rows("BEGIN READ ONLY" if snapshot is None else "BEGIN READ ONLY ISOLATION LEVEL "
                  "REPEATABLE READ")  # fmt: skip
        if snapshot is not None:
            self._join(snapshot)
        yield
        self.rows("COMMIT")  # after an error the caller drops the connection

    def _join(self, snapshot: str) -> None:
        statement = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot))
        try:
            self.rows(statement)
        except (psycopg2.DataError, psycopg2.ProgrammingError) as error:
            raise SourceChangedError(
                "the database snapshot of this plan has ended; start the run again",
                sqlstate=error.pgcode,
            ) from None

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        self.connection.close()


def connect(
    config: LoginConfig, password: str | None, policy: HostPolicy, factory: Any = None
) -> Any:
    """A new connection of psycopg2 in autocommit mode, to an address that the policy allows.

    `factory` makes one that speaks the replication protocol, which has no transactions.

    Raises:
        HostNotAllowedError: The operator does not allow the host.
        SourceError: With one of the seven stable connectivity codes.
    """
    # libpq connects to these and goes on checking certificates by the name; a local socket's
    # directory has none
    addresses = policy.resolve_allowed(config.host, config.port)
    try:
        connection = psycopg2.connect(
            host=",".join([config.host] * max(1, len(addresses))),
            hostaddr=",".join(map(str, addresses)) or None,
            port=config.port,
            dbname=config.database,
            user=config.user,
            password=password,
            passfile=_NO_PASSWORD_FILE,
            sslmode=config.ssl_mode,
            sslrootcert=config.ssl_root_cert,
            connect_timeout=config.connect_timeout_s,
            application_name=APPLICATION_NAME,
            gssencmode="disable",  # for it, tickets of this machine's account would be taken
            client_encoding="UTF8",  # psycopg2 would not notice a later SET
            connection_factory=factory,
            **KEEPALIVES,
        )
    except psycopg2.Error as error:
        raise connection_failure(error, address_of(config)) from None
    if factory is None:
        connection.autocommit = True
    return connection


def address_of(config: LoginConfig) -> str:
    """Host, port and database, for messages."""
    return f"{config.host}:{config.port}/{config.database}"


class Sessions:
    """Opens connections for one endpoint and keeps at most one idle for the next use."""

    def __init__(self, spec: EndpointSpec) -> None:
        self._config = PostgresConfig.from_json(dict(spec.config))
        self._password = spec.secrets.get("password")
        self._host_policy = spec.host_policy
        self._idle: Session | None = None

    @property
    def address(self) -> str:
        """Host, port and database, for messages."""
        return address_of(self._config)

    def open(self) -> Session:
        """A new connection, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        connection = connect(self._config, self._password, self._host_policy)
        session = Session(connection)
        lock_timeout_ms = sql.Literal(round(self._config.lock_timeout_s * 1000))
        with mapped_errors(f"setting up a session on {self.address}"):
            session.rows(_SETTINGS.format(lock_timeout_ms=lock_timeout_ms))
        return session

    @contextmanager
    def lease(self, doing: str) -> Iterator[Session]:
        """A connection for one piece of work; `doing` opens the message if it fails.

        It is kept for the next use if the work ends well, and closed otherwise, because then a
        transaction or a COPY may still be open.
        """
        session = self._take() or self.open()
        try:
            with mapped_errors(doing):
                yield session
        except BaseException:
            session.close()
            raise
        if self._idle is None:
            self._idle = session
        else:
            session.close()

    def ping(self) -> tuple[float, str]:
        """Open a new connection; milliseconds until it answered, and the server's version.

        It is kept for the next use: a connection for each half of a test would cost twice.
        """
        self.close()
        started = time.monotonic()
        with self.lease(f"asking {self.address} for its version") as session:
            (version,) = session.row("SHOW server_version")
        return (time.monotonic() - started) * 1000, str(version)

    def close(self) -> None:
        """Close the idle connection. Safe to call twice."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _take(self) -> Session | None:
        session, self._idle = self._idle, None
        if session is None:
            return None
        try:
            session.rows("SELECT 1")
        except psycopg2.Error:  # the server closed it while nobody was looking
            session.close()
            return None
        return session
