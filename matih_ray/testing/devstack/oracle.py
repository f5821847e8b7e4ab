"""A stand-in for Oracle Database of our own: its SQL on DuckDB, data in memory.

No registry has Oracle, and its protocol is not public. So what clients talk to it with is the
stand-in for their driver's `connect`, `oracle_driver`, by messages of Python's `multiprocessing`.
What it lacks: most of Oracle's SQL, rights, transactions, character sets and collations.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import duckdb
from sqlglot import exp
from sqlglot.errors import SqlglotError

from matih_ray.testing.devstack.duck_sql import DuckSession, DuckSql, Result
from matih_ray.testing.devstack.oracle_sql import OracleSql, dictionary, readable

LIMIT_S = 60.0

_BY_ERROR: tuple[tuple[type[Exception], int, str], ...] = (
    (duckdb.CatalogException, 942, "table or view does not exist"),
    (duckdb.BinderException, 904, "invalid identifier"),
    (SqlglotError, 933, "SQL command not properly ended"),
    (duckdb.Error, 1722, "invalid number"),
)


class OracleServer(DuckSql):
    """The server. `users` are passwords by name; `settings` are the sessions' settings so far."""

    def __init__(self, users: Mapping[str, str], service: str = "shop") -> None:
        super().__init__(OracleSql())
        self.host, self.service = "127.0.0.1", service
        self.users, self.settings = dict(users), list[str]()
        self.denied: set[tuple[str, str]] = set()  # tables that nobody may read
        self.refusal: tuple[int, str] | None = None  # what every login is answered with
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

    def __enter__(self) -> OracleServer:
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
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with (
                connection,
                Connection(connection.dup().detach()) as channel,
                self.session() as session,
            ):
                _Conversation(self, channel, session).run()
        except (OSError, EOFError, duckdb.Error):
            pass  # the client is gone, or the server stops
        finally:
            self._sockets.discard(connection)


class _Conversation:
    """What happens on one connection: questions and answers, one for each."""

    def __init__(
        self, server: OracleServer, channel: Connection[Any, Any], session: DuckSession
    ) -> None:
        self._server, self._channel, self._session = server, channel, session
        self._rows: Any = None

    def run(self) -> None:
        """From the login until the client leaves."""
        problem = self._problem(*self._channel.recv())
        self._channel.send(problem)
        while problem is None:
            what, argument = self._channel.recv()
            if what == "execute":
                self._channel.send(self._executed(argument))
            else:
                self._channel.send(self._rows.fetchmany(argument))

    def _problem(self, user: str, password: str, service: str) -> tuple[int, str] | None:
        if service != self._server.service:
            return 12514, "TNS:listener does not currently know of service requested"
        if self._server.users.get(user) != password:
            return 1017, "invalid credential or not authorized; logon denied"
        return self._server.refusal

    def _executed(self, statement: str) -> tuple[int, str] | None:
        if statement.startswith("ALTER SESSION"):
            self._server.settings.append(statement)
            return None
        try:
            self._rows = self._result(statement).cursor
        except PermissionError:
            return 1031, "insufficient privileges"
        except (duckdb.Error, SqlglotError) as error:
            number, text = next((n, t) for kind, n, t in _BY_ERROR if isinstance(error, kind))
            detail = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
            return number, f"{text}: {detail}"
        return None

    def _result(self, statement: str) -> Result:
        parsed = self._session.parsed(readable(statement))
        for table in parsed.find_all(exp.Table):
            if self._server.name_of(table) in self._server.denied:
                raise PermissionError
            if table.name.lower().startswith("all_"):
                for name, rows in dictionary(self._server).items():
                    self._session.offer(name, rows)
        return self._session.query(parsed)


def _is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
