"""BigQuery's HTTP: requests take no longer than the connector says."""

from __future__ import annotations

from typing import Any

from google.auth.credentials import Credentials

from matih_ray.sources.bigquery.config import BigQueryConfig
from matih_ray.sources.google_login import GuardedGoogleHttp
from matih_ray.sources.host_policy import HostPolicy

# What queries ask for; the account's roles are what limits it.
SCOPE = "https://www.googleapis.com/auth/bigquery"


class BigQueryHttp(GuardedGoogleHttp):
    """With the configured times in place of the client's, which raises them to minutes and knows
    none for connecting."""

    def __init__(
        self, config: BigQueryConfig, credentials: Credentials, policy: HostPolicy
    ) -> None:
        super().__init__(credentials, policy, config.ssl_root_cert)
        self._connect_s, self._read_s = config.connect_timeout_s, config.read_timeout_s

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Send a request; a shorter time than the configured one is kept."""
        asked = options.get("timeout")
        read_s = min(asked, self._read_s) if isinstance(asked, int | float) else self._read_s
        return super().request(
            method, url, *args, **{**options, "timeout": (self._connect_s, read_s)}
        )
