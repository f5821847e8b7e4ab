"""The Databricks SQL source endpoint."""

from __future__ import annotations

import builtins
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.databricks.config import DatabricksConfig
from matih_ray.sources.databricks.dialect import DatabricksDialect
from matih_ray.sources.databricks.login import SECRET_FIELDS, login_of
from matih_ray.sources.databricks.session import DatabricksSession
from matih_ray.sources.sql.source import SqlSource


class DatabricksSource(SqlSource):
    """One catalog of a Databricks workspace, through a SQL warehouse: its tables and views."""

    type: ClassVar[str] = "DATABRICKS_SQL"
    vendor: ClassVar[str] = "jdbc.databricks"
    config_model: ClassVar[builtins.type[Value]] = DatabricksConfig
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `DatabricksConfig`.
        """
        super().__init__(spec)
        self._config = DatabricksConfig.from_json(dict(spec.config))

    @property
    def dialect(self) -> DatabricksDialect:
        """How Databricks' SQL is written."""
        return DatabricksDialect(self._config.database)

    def open_session(self) -> DatabricksSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
            ValidationError: There is neither a token nor a client id with its secret.
        """
        policy = self._spec.host_policy
        login = login_of(self._config, self._spec.secrets, policy)
        return DatabricksSession(self._config, login, policy)

    def ping(self) -> ConnectionTest:
        """Open a new session; milliseconds until it answered, and the warehouse's version."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            version = session.version()
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=version)
