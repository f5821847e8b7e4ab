"""One connection: settings under which values are exact, and rows that stream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytds

from matih_ray.errors import SourceError, SourceUnavailableError
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.sql.dialect import SqlRelation
from matih_ray.sources.sql.row_pages import gathered_rows
from matih_ray.sources.sqlserver import catalog
from matih_ray.sources.sqlserver.channel import Route, RoutedError, open_channel
from matih_ray.sources.sqlserver.config import SqlServerConfig
from matih_ray.sources.sqlserver.decoding import Row, record_batch
from matih_ray.sources.sqlserver.failures import mapped_errors, typed

# Rows are decoded so many at a time; one that is large may be 2 GB, whatever the number.
FETCH_ROWS = 1000
# Packets of the login's answer: Azure SQL sends a client on once, an availability group once more.
MAX_ROUTES = 3
# The driver would try a failed login again, on a connection that is closed by then.
_NO_SECOND_TRY_S = 0.001
_ISOLATION = {"read-committed": "READ COMMITTED", "snapshot": "SNAPSHOT"}


class SqlServerSession:
    """One connection in autocommit mode. Not thread-safe."""

    def __init__(self, config: SqlServerConfig, password: str | None, policy: HostPolicy) -> None:
        """Connect.

        Raises:
            HostNotAllowedError: The operator does not allow the host, or one it sends us on to.
            SourceError: With one of the seven stable connectivity codes.
        """
        self._connection = _connected(config, password, policy)
        self._schema = config.schema_
        try:
            with mapped_errors("setting up a session"):
                for setting in _settings(config):
                    self._run(setting)
                ((version,),) = self._rows("SELECT @@VERSION")
        except BaseException:
            self.close()
            raise
        self.version = str(version).splitlines()[0].strip()

    def names(self) -> Sequence[catalog.Name]:
        """(schema, name) of all tables and views that the login may see."""
        with mapped_errors("listing tables"):
            return catalog.names(self._rows, self._schema)

    def relations(self, names: Sequence[catalog.Name]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; reads catalogs only."""
        with mapped_errors("reading the catalog"):
            return catalog.relations(self._rows, names)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`."""
        with mapped_errors("reading rows"), self._connection.cursor() as cursor:
            cursor.execute(statement)
            for rows in gathered_rows(_pages(cursor)):
                yield record_batch(rows, schema)

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(pytds.Error, SourceError, OSError):
            self._connection.close()

    def _rows(self, statement: str) -> list[tuple[object, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


def _settings(config: SqlServerConfig) -> Iterator[str]:
    yield f"SET TRANSACTION ISOLATION LEVEL {_ISOLATION[config.isolation]}"
    yield f"SET LOCK_TIMEOUT {config.lock_timeout_s * 1000}"
    yield "SET DATEFORMAT ymd"  # the literals of datetime are read by it
    yield "SET TEXTSIZE 2147483647"


def _connected(config: SqlServerConfig, password: str | None, policy: HostPolicy) -> Any:
    route = Route(config.host, config.port)
    for _ in range(MAX_ROUTES):
        try:
            return _logged_in(config, password, route, policy)
        except RoutedError as elsewhere:
            route = elsewhere.route
    raise SourceUnavailableError(
        f"{config.host}:{config.port} sent us on {MAX_ROUTES} times, last to {route.host}"
    )


def _logged_in(
    config: SqlServerConfig, password: str | None, route: Route, policy: HostPolicy
) -> Any:
    """The driver's connection.

    Raises:
        RoutedError: The server sends us on.
        SourceError: With one of the seven stable connectivity codes.
    """
    addresses = policy.resolve_allowed(route.host, route.port)
    channel = open_channel(config, route.host, route.port, addresses)
    doing = f"cannot log in at {route.host}:{route.port}"
    try:
        with mapped_errors(doing):
            return pytds.connect(
                dsn=route.host,
                port=route.port,
                user=config.user,
                password=password or "",
                database=config.database,
                appname="matih-ray",
                autocommit=True,
                bytes_to_unicode=True,
                readonly=config.read_only_intent,
                login_timeout=_NO_SECOND_TRY_S,
                disable_connect_retry=True,
                sock=channel,
            )
    except TimeoutError as ended:  # the driver's way to say that it does not try again
        channel.close()
        if isinstance(ended.__cause__, pytds.Error):
            raise typed(ended.__cause__, doing) from None
        raise SourceUnavailableError(f"{doing}: the connection ended") from None
    except BaseException:
        channel.close()
        raise


def _pages(cursor: Any) -> Iterator[list[Row]]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield rows
