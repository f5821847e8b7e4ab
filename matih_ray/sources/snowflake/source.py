"""The Snowflake source endpoint."""

from __future__ import annotations

import builtins
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.errors import ValidationError
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.snowflake.config import SnowflakeConfig
from matih_ray.sources.snowflake.dialect import SnowflakeDialect
from matih_ray.sources.snowflake.session import SnowflakeSession
from matih_ray.sources.sql.source import SqlSource


class SnowflakeSource(SqlSource):
    """One database of a Snowflake account: its tables and views."""

    type: ClassVar[str] = "SNOWFLAKE"
    vendor: ClassVar[str] = "jdbc.snowflake"
    config_model: ClassVar[builtins.type[Value]] = SnowflakeConfig
    secret_fields: ClassVar[tuple[str, ...]] = (
        "password",
        "privateKey",
        "privateKeyPassphrase",
    )

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `SnowflakeConfig`, or there are two
                credentials.
        """
        super().__init__(spec)
        self._config = SnowflakeConfig.from_json(dict(spec.config))
        if spec.secrets.get("password") and spec.secrets.get("privateKey"):
            raise ValidationError(
                "give password or privateKey, not both", field="credentials.privateKey"
            )

    @property
    def dialect(self) -> SnowflakeDialect:
        """How Snowflake's SQL is written."""
        return SnowflakeDialect()

    def open_session(self) -> SnowflakeSession:
        """A new session, which the caller closes.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        return SnowflakeSession(self._config, self._spec.secrets, self._spec.host_policy)

    def ping(self) -> ConnectionTest:
        """Open a new session; milliseconds until it answered, and the service's version."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            version = session.version()
        latency_ms = (time.monotonic() - started) * 1000
        return ConnectionTest(latency_ms=latency_ms, server_version=version)
