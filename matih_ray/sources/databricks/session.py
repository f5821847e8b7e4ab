"""One connection: settings under which values are exact, and results in Arrow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import databricks.sql
import pyarrow as pa
from databricks.sql.client import Connection
from databricks.sql.exc import Error
from urllib3.exceptions import HTTPError

from matih_ray.errors import DatabaseNotFoundError, SourceRejectedError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.databricks.catalog import Catalog, Name, Row
from matih_ray.sources.databricks.config import DatabricksConfig
from matih_ray.sources.databricks.decoding import decoded
from matih_ray.sources.databricks.dialect import quoted
from matih_ray.sources.databricks.failures import is_starting, mapped_errors, typed
from matih_ray.sources.databricks.login import Login
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.probe import DirectTls, probe
from matih_ray.sources.sql.dialect import SqlRelation

# Rows of one answer; the warehouse ends it earlier at `TARGET_BATCH_BYTES`.
MAX_FETCH_ROWS = 50_000
# Rows of the first batch, which shows how large rows are.
FIRST_BATCH_ROWS = 1000
# Between questions whether a warehouse has started, which takes seconds or minutes: the first wait,
# doubled each time, and the longest.
START_POLL_S = 1.0
MAX_START_POLL_S = 15.0
# The client waits and asks again by itself for a quarter of an hour, also where a certificate is
# refused or a port closed. This is the least of it: one more attempt, at once.
_LEAST_RETRIES = {
    "_retry_stop_after_attempts_count": 1,
    "_retry_stop_after_attempts_duration": 1.0,
    "_retry_delay_min": 0.1,
    "_retry_delay_max": 5.0,
    "_respect_server_retry_after_header": True,
}


class DatabricksSession:
    """One login. Not thread-safe."""

    def __init__(self, config: DatabricksConfig, login: Login, policy: HostPolicy) -> None:
        """Connect and choose the catalog. The login is closed with the session.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        self._config, self._login = config, login
        self._catalog = Catalog(self._rows, config.database)
        try:
            _knock(config, policy)
            self._connection = _opened(config, login)
        except BaseException:
            login.close()
            raise

    def version(self) -> str:
        """The warehouse's version."""
        with mapped_errors("asking for the version"):
            [row] = self._rows(_VERSION)
        return f"Databricks SQL {row['version']}"

    def names(self) -> Sequence[Name]:
        """(schema, name) of all tables and views that the account may see."""
        with mapped_errors("listing tables"):
            return self._catalog.names(self._config.schema_)

    def relations(self, names: Sequence[Name]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns and keys; reads catalogs only."""
        with mapped_errors("reading the catalog"):
            return self._catalog.relations(names)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`."""
        with (
            mapped_errors("reading rows"),
            self._connection.cursor(MAX_FETCH_ROWS, TARGET_BATCH_BYTES) as cursor,
        ):
            cursor.execute(statement)
            wanted = FIRST_BATCH_ROWS
            while (table := cursor.fetchmany_arrow(wanted)).num_rows:
                yield from decoded(table, schema).combine_chunks().to_batches()
                row_bytes = max(table.nbytes // table.num_rows, 1)
                wanted = min(max(TARGET_BATCH_BYTES // row_bytes, 1), MAX_FETCH_ROWS)

    def close(self) -> None:
        """End the session, whatever state the connection is in."""
        _close(self._connection)
        self._login.close()

    def _rows(self, statement: str) -> list[Row]:
        return _asked(self._connection, statement)


def _opened(config: DatabricksConfig, login: Login) -> Connection:
    """A connection that is set up, once the warehouse has started.

    A stopped one starts when it is asked, and may open a session before it can do anything with it.
    """
    doing = f"cannot connect to {config.host}:{config.port}"
    deadline = time.monotonic() + config.start_timeout_s
    wait_s = START_POLL_S
    while True:
        try:
            return _set_up(_connect(config, login), config)
        except (Error, HTTPError) as error:
            if not is_starting(error) or time.monotonic() > deadline:
                raise typed(error, doing, missing=DatabaseNotFoundError) from None
        except ImportError:
            # the client would then use another one, whose requests are not under the host policy
            raise SourceRejectedError(
                f"{doing}: the warehouse does not speak the protocol of SQL warehouses (Thrift)"
            ) from None
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, MAX_START_POLL_S)


def _set_up(connection: Connection, config: DatabricksConfig) -> Connection:
    try:
        _asked(connection, "SET TIME ZONE 'UTC'")
        _asked(connection, f"USE CATALOG {quoted(config.database)}")
    except BaseException:
        _close(connection)
        raise
    return connection


def _asked(connection: Connection, statement: str) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        found = cursor.fetchall_arrow()
    names = [name.lower() for name in found.column_names]
    rows: list[Row] = found.rename_columns(names).to_pylist()
    return rows


def _close(connection: Connection) -> None:
    with contextlib.suppress(Error, HTTPError, OSError):
        connection.close()


def _connect(config: DatabricksConfig, login: Login) -> Connection:
    return databricks.sql.connect(
        server_hostname=config.host,
        http_path=config.http_path,
        credentials_provider=lambda: login.headers,
        enable_telemetry=False,
        use_cloud_fetch=False,
        user_agent_entry="matih-ray",
        _connection_uri=f"{config.origin}/{config.http_path.lstrip('/')}",
        _port=config.port,
        _socket_timeout=config.read_timeout_s,
        _tls_trusted_ca_file=config.ssl_root_cert,
        **_LEAST_RETRIES,
    )


def _knock(config: DatabricksConfig, policy: HostPolicy) -> None:
    """Resolve, connect and shake hands once: the client would only say that it failed."""
    tls = None
    if config.ssl_mode != "disable":
        root = config.ssl_root_cert
        tls = DirectTls("verify-full", None if root is None else Path(root))
    found = probe(
        config.host, config.port, policy, direct_tls=tls, timeout_s=float(config.connect_timeout_s)
    )
    if found.error is not None:
        raise found.error


_VERSION = (
    "SELECT coalesce(current_version().dbsql_version, current_version().dbr_version) AS version"
)
