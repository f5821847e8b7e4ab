"""The BigQuery source endpoint."""

from __future__ import annotations

import builtins
import time
from contextlib import closing
from typing import ClassVar

from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec
from matih_ray.sources.bigquery.config import BigQueryConfig
from matih_ray.sources.bigquery.dialect import BigQueryDialect
from matih_ray.sources.bigquery.session import BigQuerySession
from matih_ray.sources.google_login import SECRET_FIELDS, refuse_two_credentials
from matih_ray.sources.sql.source import SqlSource


class BigQuerySource(SqlSource):
    """Datasets of one project: their tables and views."""

    type: ClassVar[str] = "BIGQUERY"
    vendor: ClassVar[str] = "warehouse.bigquery"
    config_model: ClassVar[builtins.type[Value]] = BigQueryConfig
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit, or there are two credentials.
        """
        super().__init__(spec)
        self._config = BigQueryConfig.from_json(dict(spec.config))
        refuse_two_credentials(spec.secrets)

    @property
    def dialect(self) -> BigQueryDialect:
        """How BigQuery's SQL is written."""
        return BigQueryDialect(self._config.project_id)

    def open_session(self) -> BigQuerySession:
        """A new session, which the caller closes.

        Raises:
            AuthenticationFailedError: There is no usable credential.
        """
        return BigQuerySession(self._config, self._spec.secrets, self._spec.host_policy)

    def ping(self) -> ConnectionTest:
        """Ask for each dataset and for a query; milliseconds until all have answered."""
        started = time.monotonic()
        with closing(self.open_session()) as session:
            session.ping()
        latency_ms = (time.monotonic() - started) * 1000
        # the protocol's version; the service has none
        return ConnectionTest(latency_ms=latency_ms, server_version="BigQuery API v2")
