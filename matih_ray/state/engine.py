"""Connections and transactions of the metadata database, and the one place where SQLAlchemy's
errors become ours.

SQLite is shared by many processes and threads (Serve replicas, planners, the supervisor, the CLI):

- WAL, so that readers never wait for the writer;
- every writing transaction starts with `BEGIN IMMEDIATE`. One that reads first and then writes
  would fail at once, without waiting, when another writer came between (SQLITE_BUSY_SNAPSHOT);
- writers take turns at a lock file before they start, threads of one process at a lock before
  that. SQLite's own waiting sleeps for up to 100 ms between tries: with eight writing processes on
  two cores the unluckiest transaction took 3 to 7 s, and takes 0.3 to 0.7 s this way. Whoever
  writes without the lock file (another tool) is waited for by `busy_timeout`;
- `synchronous=NORMAL`: no fsync per commit, only per WAL checkpoint. A crash of a process loses
  nothing; a power failure may lose the last commits, never the file. The ledger is allowed to
  forget its last steps, because the sink's marker says what was committed.

WAL needs shared memory, so the file must be on a local disk; hosts share a PostgreSQL instead.
On PostgreSQL the default isolation (READ COMMITTED) is enough: each write is one compare-and-set
statement, or follows a `SELECT … FOR UPDATE` of the row that it depends on.

An engine belongs to the process that made it: never carry one through a fork.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
    StatementError,
)

from matih_ray.errors import (
    ConfigurationError,
    MatihError,
    MissingExtraError,
    StateError,
    StateVersionError,
)
from matih_ray.state.files import exclusive

# A writer holds the SQLite lock for about a millisecond; half a minute means that something hangs.
BUSY_TIMEOUT_MS = 30_000
# Connections per process. Planners and replicas are several processes on one PostgreSQL, whose
# default limit is 100; the overflow is closed again after a burst.
POOL_CONNECTIONS = 4
POOL_OVERFLOW = 8
POOL_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 10
# A server whose host vanished is noticed after half a minute instead of the system's two hours: a
# planner that cannot send its heartbeat must find out before its run is taken over many times.
_POSTGRESQL_DEFAULTS: dict[str, str | int] = {
    "application_name": "matih-ray",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# What SQLite says about a file that holds something else, or half of it.
_FOREIGN_FILE = ("file is not a database", "database disk image is malformed")
# Longest message of a driver that is repeated in ours.
MAX_DRIVER_MESSAGE_CHARS = 300

_WRITES = "matih_writes"


class _ViolatedError(Exception):
    """A violated constraint on its way out of a transaction; never leaves `Database`."""

    def __init__(self, plain: StateError) -> None:
        super().__init__(plain.message)
        self.plain = plain


class Database:
    """An engine with the two kinds of transactions that the stores use."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._writer = engine.execution_options(**{_WRITES: True})
        self._threads = threading.Lock()
        self._lock_file = Path(f"{engine.url.database}.lock") if self.is_sqlite else None

    @contextmanager
    def read(self, doing: str) -> Iterator[Connection]:
        """A transaction that changes nothing; `doing` completes "could not …" in errors."""
        with self._translated(doing), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(
        self, doing: str, violated: Callable[[], MatihError] | None = None
    ) -> Iterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises.

        Not to be nested: on SQLite the inner one would wait for the outer one. `violated` makes the
        error for a violated constraint; it is called after the transaction, so it may look around.

        Raises:
            StateError: The database cannot be reached or refuses.
        """
        try:
            with (
                self._translated(doing),
                self._turn(),
                self._writer.begin() as connection,
            ):
                yield connection
        except _ViolatedError as error:
            raise (violated() if violated else error.plain) from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._lock_file is None:
            yield
            return
        with self._threads, exclusive(self._lock_file):
            yield

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that may say what to do on conflict, in this database's dialect."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Close all connections; harmless to repeat."""
        self.engine.dispose()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise _ViolatedError(self._state_error(doing, error)) from None
        except StatementError as error:
            # a refusal of our own column types, raised while a statement was being prepared
            if isinstance(error.orig, MatihError):
                raise error.orig from None
            raise self._state_error(doing, error) from None
        except SQLAlchemyError as error:
            raise self._state_error(doing, error) from None

    def _state_error(self, doing: str, error: SQLAlchemyError) -> StateError:
        reason = _reason(error, self.engine.url)
        if self.is_sqlite and reason in _FOREIGN_FILE:
            return StateVersionError(
                f"could not {doing}: {self.engine.url.database} is no SQLite database, or a "
                "damaged one, and is left as it is; restore it from a backup, or set "
                "MATIH_METADATA_URL to another one",
                path=self.engine.url.database,
            )
        return StateError(
            f"could not {doing}: the metadata store ({self.engine.dialect.name}) says: {reason}; "
            "check that it is reachable and has room, then try again",
            dialect=self.engine.dialect.name,
            driver_error=type(getattr(error, "orig", None) or error).__name__,
        )


def open_database(url: SecretStr | URL) -> Database:
    """Connect lazily to the database of a SQLAlchemy URL (`sqlite:///…` or `postgresql://…`).

    Raises:
        ConfigurationError: Not a URL of a supported database.
        MissingExtraError: The driver is not installed.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return Database(_sqlite_engine(parsed))
    return Database(_postgresql_engine(parsed))


def _parsed(url: SecretStr | URL) -> URL:
    remedy = "use sqlite:///path/to/file or postgresql://user:password@host:5432/database"
    try:
        parsed = url if isinstance(url, URL) else make_url(url.get_secret_value())
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"MATIH_METADATA_URL is not a database URL; {remedy}", setting="metadata_url"
        ) from None
    if backend not in ("sqlite", "postgresql", "postgres"):
        raise ConfigurationError(
            f"MATIH_METADATA_URL names the database {backend!r}, which is not supported; {remedy}",
            setting="metadata_url",
        )
    if backend == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError(
                "the metadata store needs a file, because several processes share it; "
                "use sqlite:///path/to/file",
                setting="metadata_url",
            )
        return parsed.set(drivername="sqlite+pysqlite")
    return parsed.set(drivername="postgresql+psycopg2")


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "").absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create the directory {path.parent} of the metadata store: {error.strerror}",
            setting="metadata_url",
        ) from None
    engine = create_engine(
        url.set(database=str(path)),
        hide_parameters=True,
        pool_size=POOL_CONNECTIONS,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        # the driver's own BEGIN is deferred and comes late; ours is sent by `_begin` below
        connect_args={
            "isolation_level": None,
            **({} if "timeout" in url.query else {"timeout": BUSY_TIMEOUT_MS / 1000}),
        },
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_size=POOL_CONNECTIONS,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
            # a restarted server must cost a new connection, not a failed run
            pool_pre_ping=True,
            connect_args={
                name: value for name, value in _POSTGRESQL_DEFAULTS.items() if name not in url.query
            },
        )
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a PostgreSQL metadata store needs psycopg2: pip install 'matih-ray[postgres]'",
            extra="postgres",
        ) from None
    except (ArgumentError, NoSuchModuleError):
        raise ConfigurationError(
            "MATIH_METADATA_URL has options that the PostgreSQL driver does not know",
            setting="metadata_url",
        ) from None


def _reason(error: SQLAlchemyError, url: URL) -> str:
    """What the driver said, on one line, without the password and without parameters."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    diagnostics = getattr(error.orig, "diag", None)
    text = getattr(diagnostics, "message_primary", None) or str(error.orig)
    line = " ".join(text.split())[:MAX_DRIVER_MESSAGE_CHARS] or type(error.orig).__name__
    return line.replace(url.password, "***") if url.password else line
