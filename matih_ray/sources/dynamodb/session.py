"""The client of one endpoint: the connector's own keys and nothing of this machine's account."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from matih_ray.errors import AuthenticationFailedError
from matih_ray.sources.aws_failures import mapped_errors
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.dynamodb.config import DynamoConfig

# Attempts for one request, with the client's own growing pauses between them: half a minute of
# throttling. What lasts longer is for the run's failure policy.
MAX_ATTEMPTS = 8
# A test answers a person who waits.
MAX_TEST_ATTEMPTS = 2
# Slices that one source may have under way in one process.
MAX_CONNECTIONS = 16

# Profiles of this machine's account are not the connector's. Each entry is the name in a file, the
# environment's, the default and a conversion.
_NOT_OURS = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

Item = dict[str, Any]


class Sessions:
    """Opens the client on first use. Safe to use from several threads."""

    def __init__(self, spec: EndpointSpec) -> None:
        self.config = DynamoConfig.from_json(dict(spec.config))
        self._secrets = spec.secrets
        self._client: Any = None

    @property
    def address(self) -> str:
        """Region, and endpoint if it is another than the region's own, for messages."""
        override = self.config.endpoint_override
        return self.config.region if override is None else f"{self.config.region} at {override}"

    def client(self) -> Any:
        """boto3's low-level client.

        Raises:
            AuthenticationFailedError: The connector has no keys.
        """
        if self._client is None:
            self._client = self._opened(MAX_ATTEMPTS)
        return self._client

    def ping(self) -> float:
        """List one table with a new client; milliseconds until it answered.

        Raises:
            SourceError: With one of the stable connectivity codes.
        """
        client = self._opened(MAX_TEST_ATTEMPTS)
        started = time.monotonic()
        try:
            with mapped_errors(f"cannot list tables of {self.address}"):
                client.list_tables(Limit=1)
        finally:
            client.close()
        return (time.monotonic() - started) * 1000

    def scan(self, **request: Any) -> Iterator[list[Item]]:
        """The pages of a scan: up to 1 MB of the table each, so possibly none of its items."""
        client = self.client()
        while True:
            page = client.scan(ConsistentRead=self.config.consistent_read, **request)
            yield page["Items"]
            if (last := page.get("LastEvaluatedKey")) is None:
                return
            request["ExclusiveStartKey"] = last

    def close(self) -> None:
        """Close the client's connections. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _opened(self, attempts: int) -> Any:
        key, secret = (self._secrets.get(name) for name in ("accessKeyId", "secretAccessKey"))
        if not key or not secret:
            # boto3 would otherwise take the keys of the machine that this runs on
            raise AuthenticationFailedError(
                f"{self.address}: the connector has no accessKeyId and secretAccessKey"
            )
        config = self.config
        session = botocore.session.Session(session_vars=_NOT_OURS)
        with mapped_errors(f"cannot connect to {self.address}"):
            return boto3.Session(botocore_session=session).client(
                "dynamodb",
                region_name=config.region,
                endpoint_url=config.endpoint_override,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                aws_session_token=self._secrets.get("sessionToken"),
                verify=config.ssl_root_cert or True,
                config=Config(
                    connect_timeout=config.connect_timeout_s,
                    read_timeout=config.read_timeout_s,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    max_pool_connections=MAX_CONNECTIONS,
                    ignore_configured_endpoint_urls=True,
                ),
            )
