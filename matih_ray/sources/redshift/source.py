"""The Redshift source endpoint."""

from __future__ import annotations

import builtins
import re
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.redshift.config import RedshiftConfig
from matih_ray.sources.redshift.dialect import RedshiftDialect
from matih_ray.sources.redshift.session import RedshiftSession
from matih_ray.sources.sql.source import SqlSource

_VERSION = re.compile(r"(Redshift|PostgreSQL) [\w.]+")


class RedshiftSource(SqlSource):
    """One database of a Redshift cluster or workgroup: its tables and views."""

    type: ClassVar[str] = "REDSHIFT"
    vendor: ClassVar[str] = "jdbc.redshift"
    config_model: ClassVar[builtins.type[Value]] = RedshiftConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("password",)

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `RedshiftConfig`.
        """
        super().__init__(spec)
        self._config = RedshiftConfig.from_json(dict(spec.config))

    @property
    def dialect(self) -> RedshiftDialect:
        """How Redshift's SQL is written."""
        return RedshiftDialect()

    def open_session(self) -> RedshiftSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        spec = self._spec
        return RedshiftSession(self._config, spec.secrets.get("password"), spec.host_policy)

    def ping(self) -> ConnectionTest:
        """Open a new session; milliseconds until it answered, and the server's version."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            version = session.version
        # Redshift names the PostgreSQL that it came from first, and itself last
        found = [match[0] for match in _VERSION.finditer(version)]
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=found[-1] if found else version)
