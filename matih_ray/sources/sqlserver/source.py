"""The SQL Server source endpoint."""

from __future__ import annotations

import builtins
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.sql.source import SqlSource
from matih_ray.sources.sqlserver.config import SqlServerConfig
from matih_ray.sources.sqlserver.dialect import SqlServerDialect
from matih_ray.sources.sqlserver.session import SqlServerSession


class SqlServerSource(SqlSource):
    """One database of a SQL Server: its tables and views."""

    type: ClassVar[str] = "SQL_SERVER"
    vendor: ClassVar[str] = "jdbc.sqlserver"
    config_model: ClassVar[builtins.type[Value]] = SqlServerConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)
    modulo: ClassVar[str] = "{0} % {1}"
    counting: ClassVar[str] = "COUNT_BIG(*)"  # COUNT ends at 2^31 rows

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `SqlServerConfig`.
        """
        super().__init__(spec)
        self._config = SqlServerConfig.from_json(dict(spec.config))

    @property
    def dialect(self) -> SqlServerDialect:
        """How T-SQL is written."""
        return SqlServerDialect()

    def open_session(self) -> SqlServerSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        spec = self._spec
        return SqlServerSession(self._config, spec.secrets.get("password"), spec.host_policy)

    def ping(self) -> ConnectionTest:
        """Open a new session; milliseconds until it answered, and the server's version."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            version = session.version
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=version)
