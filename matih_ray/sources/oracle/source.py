"""The Oracle source endpoint."""

from __future__ import annotations

import builtins
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.oracle.config import OracleConfig
from matih_ray.sources.oracle.dialect import OracleDialect
from matih_ray.sources.oracle.session import OracleSession
from matih_ray.sources.sql.source import SqlSource


class OracleSource(SqlSource):
    """One service of an Oracle Database: its tables and views."""

    type: ClassVar[str] = "ORACLE"
    vendor: ClassVar[str] = "jdbc.oracle"
    config_model: ClassVar[builtins.type[Value]] = OracleConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `OracleConfig`.
        """
        super().__init__(spec)
        self._config = OracleConfig.from_json(dict(spec.config))

    @property
    def dialect(self) -> OracleDialect:
        """How Oracle's SQL is written."""
        return OracleDialect()

    def open_session(self) -> OracleSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        spec = self._spec
        return OracleSession(self._config, spec.secrets.get("password"), spec.host_policy)

    def ping(self) -> ConnectionTest:
        """Open a new session; milliseconds until it answered, and the server's version."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            version = session.version
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=version)
