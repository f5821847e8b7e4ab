"""A stand-in for SQL Server of our own: TDS 7.4 over a socket, T-SQL on DuckDB, data in memory.

No registry has SQL Server. What this one lacks: most of T-SQL, transactions, locks, isolation,
collations (texts compare by their code points), parameters, and the conversions of datetime.
It runs in threads of the test's process, so that a test can look at what was asked.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import duckdb
from sqlglot import exp
from sqlglot.errors import SqlglotError

from matih_ray.testing.devstack import tds
from matih_ray.testing.devstack.duck_sql import DuckSession, DuckSql, Result
from matih_ray.testing.devstack.tsql import Tsql, catalog

VERSION = "Microsoft SQL Server 2022 (stand-in on DuckDB) - 16.0.1000.0 (X64)"
ROWS_PER_PIECE = 500
PRELOGIN_PACKET = tds.PRELOGIN
LIMIT_S = 60.0

_BY_ERROR: tuple[tuple[type[Exception], int, str], ...] = (
    (duckdb.CatalogException, 208, "Invalid object name"),
    (duckdb.BinderException, 207, "Invalid column name"),
    (duckdb.ConversionException, 245, "Conversion failed"),
    (SqlglotError, 102, "Incorrect syntax"),
    (duckdb.Error, 8623, "The query processor could not produce a query plan"),
)


class SqlServer(DuckSql):
    """The server. `users` are passwords by name; `settings` are the SET statements it was given."""

    def __init__(
        self,
        users: Mapping[str, str],
        database: str = "shop",
        *,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """With a certificate and its key (PEM), TLS is spoken and needed."""
        super().__init__(Tsql())
        self.host, self.database = "127.0.0.1", database
        self.users, self.settings = dict(users), list[str]()
        self.denied: set[tuple[str, str]] = set()  # tables that nobody may read
        self.closed: set[str] = set()  # users that may not open the database
        self.refusal: tuple[int, str] | None = None  # what every login is answered with
        self.route: tuple[str, int] | None = None
        self.logins: list[tds.Login] = []
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        self._listener = socket.create_server((self.host, 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def connections(self) -> int:
        """Connections that are open: a client that has left counts no more, even if its thread has
        not noticed yet."""
        return sum(_is_open(connection) for connection in list(self._sockets))

    def cut(self) -> None:
        """Break all connections off."""
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> SqlServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # wakes `accept`, which closing would not
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(LIMIT_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, self.session() as session:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Conversation(self, _Wire(connection), session).run()
        except (OSError, EOFError, duckdb.Error):
            pass  # the client is gone, or the server stops
        finally:
            self._sockets.discard(connection)


class _Conversation:
    """What happens on one connection."""

    def __init__(self, server: SqlServer, wire: _Wire, session: DuckSession) -> None:
        self._server, self._wire, self._session = server, wire, session

    def run(self) -> None:
        """From the first packet until the client leaves."""
        _, prelogin = self._wire.message()
        asked, context = tds.encryption_asked(prelogin), self._server.context
        wanted = tds.ENCRYPT_ON if asked == tds.ENCRYPT_ON else tds.ENCRYPT_REQUIRED
        self._wire.send(tds.prelogin_reply(wanted if context else tds.ENCRYPT_NOT_SUPPORTED))
        if context is not None:
            self._wire.start_tls(context)
        _, message = self._wire.message()
        if not self._log_in(tds.login_of(message)):
            return
        while True:
            kind, message = self._wire.message()
            if kind == tds.ATTENTION:
                self._wire.send(tds.done(cancelled=True))
            elif kind == tds.BATCH:
                (headers,) = struct.unpack_from("<I", message)
                self._answer(message[headers:].decode("utf-16-le"))

    def _log_in(self, login: tds.Login) -> bool:
        server = self._server
        server.logins.append(login)
        problem = b"" if server.refusal is None else tds.failure(*server.refusal)
        if server.users.get(login.user) != login.password:
            problem = tds.failure(18456, f"Login failed for user '{login.user}'.", 14)
        elif login.database != server.database or login.user in server.closed:
            text = f'Cannot open database "{login.database}" requested by the login.'
            problem = tds.failure(4060, f"{text} The login failed.", 11)
            problem += tds.failure(18456, f"Login failed for user '{login.user}'.", 14)
        elif server.route is not None:
            self._wire.send(tds.routed(*server.route))
            return False
        if problem:
            self._wire.send(problem + tds.done(failed=True))
            return False
        self._wire.send(tds.logged_in(server.database))
        return True

    def _answer(self, batch: str) -> None:
        if batch.startswith("SET "):
            self._server.settings.append(batch)
            self._wire.send(tds.done())
            return
        try:
            result = self._result(batch)
        except _RefusedError as refused:
            self._wire.send(tds.failure(229, str(refused), 14) + tds.done(failed=True))
        except (duckdb.Error, SqlglotError) as error:
            number, text = next((n, t) for kind, n, t in _BY_ERROR if isinstance(error, kind))
            detail = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
            self._wire.send(tds.failure(number, f"{text}: {detail}") + tds.done(failed=True))
        else:
            self._wire.stream(_tokens(result))

    def _result(self, batch: str) -> Result:
        parsed = self._session.parsed(batch.replace("@@VERSION", f"N'{VERSION}' AS version"))
        for table in parsed.find_all(exp.Table):
            if self._server.name_of(table) in self._server.denied:
                raise _RefusedError(
                    f"The SELECT permission was denied on the object '{table.name}', database "
                    f"'{self._server.database}', schema '{table.db}'."
                )
            if table.db == "sys":
                for name, rows in catalog(self._server).items():
                    self._session.offer(name, rows)
        return self._session.query(parsed)


class _RefusedError(Exception):
    """The user may not."""


class _Wire:
    """Packets over a connection, encrypted or not."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def message(self) -> tuple[int, bytes]:
        """The next message: its type and payload."""
        payload = bytearray()
        while True:
            header = self._read(tds.HEADER_BYTES)
            kind, status, size = struct.unpack_from(">BBH", header)
            payload += self._read(size - tds.HEADER_BYTES)
            if status & tds.END_OF_MESSAGE:
                return kind, bytes(payload)

    def send(self, tokens: bytes) -> None:
        """A whole answer."""
        self._write(tds.packets(tds.REPLY, tokens))

    def stream(self, pieces: Iterable[bytes]) -> None:
        """An answer in pieces, so that none is held as a whole."""
        held = b""
        room = tds.PACKET_BYTES - tds.HEADER_BYTES
        for piece in pieces:
            held += piece
            whole = len(held) // room * room
            if whole == len(held):
                whole -= room  # the last packet is marked, so something must be left for it
            if whole > 0:
                unmarked = bytearray(tds.packets(tds.REPLY, held[:whole]))
                unmarked[-tds.PACKET_BYTES + 1] = 0
                self._write(bytes(unmarked))
                held = held[whole:]
        self.send(held)

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake, whose records travel inside packets."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_handshake()
                self._incoming.write(self.message()[1])
            except ssl.SSLError:
                self._flush_handshake()
                raise
            else:
                break
        self._flush_handshake()
        self._tls = tls

    def _flush_handshake(self) -> None:
        if records := self._outgoing.read():
            self._connection.sendall(tds.packets(PRELOGIN_PACKET, records))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._receive(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _receive(self, size: int) -> bytes:
        if self._tls is None:
            return self._connection.recv(size)
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                records = self._connection.recv(65_536)
                if not records:
                    return b""
                self._incoming.write(records)

    def _write(self, data: bytes) -> None:
        if self._tls is None:
            self._connection.sendall(data)
            return
        self._tls.write(data)
        self._connection.sendall(self._outgoing.read())


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _tokens(result: Result) -> Iterable[bytes]:
    yield tds.columns(result.columns)
    types = [tds.wire_type(type_) for _, type_ in result.columns]
    count = 0
    while rows := result.cursor.fetchmany(ROWS_PER_PIECE):
        count += len(rows)
        yield b"".join([tds.row(row, types) for row in rows])
    yield tds.done(count)
