"""Connections: opened with settings under which text output is exact, reused within one source."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from pymysql.converters import encoders
from pymysql.cursors import SSCursor

from matih_ray.errors import DnsResolutionError, SourceError, TlsHandshakeError
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.host_policy import Address
from matih_ray.sources.mysql.config import MySqlConfig
from matih_ray.sources.mysql.failures import BROKEN_PROTOCOL, connection_failure, mapped_errors

# Probes start after 30 s of silence: shorter than the idle limits of common firewalls. A dead
# peer is noticed 30 s later.
KEEPALIVES = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
}
# How long the server lets us pause between two batches; its own default of 60 s would end the
# connection of a run that waits for its sink.
NET_WRITE_TIMEOUT_S = 3600

# Of rows per SELECT; the variable's DEFAULT would be what the server's operator set for everybody.
NO_LIMIT = 2**64 - 1

# Output and literals that do not depend on the account's or the server's defaults. An empty
# sql_mode: backslashes escape, double quotes are not names, char values are not padded.
_SETTINGS = """
    SET SESSION time_zone = '+00:00', sql_mode = '', sql_select_limit = {no_limit},
    sql_big_selects = 1, net_write_timeout = {net_write_timeout_s},
    lock_wait_timeout = {lock_timeout_s}, {statement_limit} = 0
"""
# The server's default might be to read what is not committed.
_ISOLATION = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"

TextRow = tuple[str | None, ...]
RawRow = tuple[bytes | None, ...]


class _Stream(SSCursor):  # type: ignore[misc]  # PyMySQL declares no types
    """A cursor that holds one row at a time and can be left before its end."""

    def abandon(self) -> None:
        """Read no more; the connection must be closed next.

        `close` and even deletion would first read all the rows that are left.
        """
        if self._result is not None:
            self._result.unbuffered_active = False
        self.connection = None


class Session:
    """One connection in autocommit mode: every statement sees its own consistent state."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def rows(self, statement: str) -> list[TextRow]:
        """Run a statement and return its rows as the server's text for each value."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            found = cursor.fetchall()
        return [tuple(None if value is None else value.decode() for value in row) for row in found]

    def row(self, statement: str) -> TextRow:
        """Run a statement that returns exactly one row."""
        (row,) = self.rows(statement)
        return row

    def stream(self, statement: str) -> Generator[RawRow, None, None]:
        """Rows of a statement as bytes, fetched one by one.

        Leaving before the end makes the connection unusable.
        """
        cursor = self.connection.cursor(_Stream)
        try:
            cursor.execute(statement)
            yield from cursor.fetchall_unbuffered()
        finally:
            cursor.abandon()

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        if self.connection.open:
            with contextlib.suppress(pymysql.Error, OSError):
                self.connection.close()


class Sessions:
    """Opens connections for one endpoint and keeps at most one idle for the next use."""

    def __init__(self, spec: EndpointSpec) -> None:
        self._config = MySqlConfig.from_json(dict(spec.config))
        self._password = spec.secrets.get("password")
        self._host_policy = spec.host_policy
        self._idle: Session | None = None

    @property
    def address(self) -> str:
        """Host, port and database, for messages."""
        config = self._config
        return f"{config.host}:{config.port}/{config.database}"

    def open(self) -> Session:
        """A new connection, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        config = self._config
        # looked up once: PyMySQL goes on checking certificates by the name
        addresses = self._host_policy.resolve_allowed(config.host, config.port)
        if not addresses:  # the directory of a socket, which is no host
            raise DnsResolutionError(f"{self.address}: the host must be a name or an address")
        tls = self._tls()
        try:
            connection = pymysql.connect(
                host=config.host,
                user=config.user,
                password=(self._password or "").encode(),  # PyMySQL would make it Latin-1
                database=config.database,
                charset="utf8mb4",
                use_unicode=False,
                conv=encoders,  # no decoders: values stay the server's own text
                autocommit=True,
                read_timeout=config.connect_timeout_s,
                write_timeout=config.connect_timeout_s,
                defer_connect=True,
                **tls,
            )
            # Connected here, because PyMySQL's own timeout ends before the server's greeting.
            connection.connect(self._socket(addresses))
        except (pymysql.Error, OSError, *BROKEN_PROTOCOL) as error:
            raise connection_failure(error, self.address) from None
        session = Session(connection)
        try:
            self._set_up(session)
        except BaseException:
            session.close()
            raise
        return session

    @contextmanager
    def lease(self, doing: str) -> Iterator[Session]:
        """A connection for one piece of work; `doing` opens the message if it fails.

        It is kept for the next use if the work ends well, and closed otherwise, because then rows
        may still be under way.
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
            (version,) = session.row("SELECT VERSION()")
        return (time.monotonic() - started) * 1000, str(version)

    def close(self) -> None:
        """Close the idle connection. Safe to call twice."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _socket(self, addresses: tuple[Address, ...]) -> socket.socket:
        """A connection to the first of the addresses that takes one."""
        config = self._config
        timeout_s = config.connect_timeout_s
        *others, last = addresses
        for address in others:
            with contextlib.suppress(OSError):
                return _kept_alive(socket.create_connection((str(address), config.port), timeout_s))
        return _kept_alive(socket.create_connection((str(last), config.port), timeout_s))

    def _tls(self) -> dict[str, Any]:
        """PyMySQL's arguments for the TLS mode; without any it uses TLS if the server has it."""
        config = self._config
        if config.ssl_mode == "disable":
            return {"ssl_disabled": True}
        if config.ssl_mode == "prefer":
            return {}
        try:
            context = ssl.create_default_context(cafile=config.ssl_root_cert)
        except OSError as error:
            raise TlsHandshakeError(
                f"the trusted certificates {config.ssl_root_cert} cannot be read: {error}"
            ) from None
        context.check_hostname = config.ssl_mode == "verify-full"
        if config.ssl_mode == "require":
            context.verify_mode = ssl.CERT_NONE
        return {"ssl": context}

    def _set_up(self, session: Session) -> None:
        config, connection = self._config, session.connection
        maria = "MariaDB" in connection.get_server_info()
        with mapped_errors(f"setting up a session on {self.address}"):
            session.rows(
                _SETTINGS.format(
                    no_limit=NO_LIMIT,
                    net_write_timeout_s=NET_WRITE_TIMEOUT_S,
                    lock_timeout_s=config.lock_timeout_s,
                    statement_limit="max_statement_time" if maria else "max_execution_time",
                )
            )
            session.rows(_ISOLATION)
        # From here on a query may take its time, and keepalives notice a dead peer. There is no
        # public way to change this after the login, which needs a limit.
        connection._read_timeout = None  # noqa: SLF001 see above
        connection._write_timeout = None  # noqa: SLF001 see above

    def _take(self) -> Session | None:
        session, self._idle = self._idle, None
        if session is None:
            return None
        try:
            session.rows("SELECT 1")
        except (pymysql.Error, SourceError):  # the server closed it while nobody was looking
            session.close()
            return None
        return session


def _kept_alive(connected: socket.socket) -> socket.socket:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVES.items():
        connected.setsockopt(socket.IPPROTO_TCP, option, value)
    return connected
