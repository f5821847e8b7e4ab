"""S3, and stores that speak its protocol."""

from __future__ import annotations

import builtins
from typing import ClassVar
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from matih_ray.errors import AuthenticationFailedError
from matih_ray.model.value import Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.config import S3Config
from matih_ray.sources.files.source import FileSource

# The client's own, with growing pauses: some seconds. What lasts longer is for the failure policy.
MAX_ATTEMPTS = 3


class S3Source(FileSource):
    """One bucket of S3."""

    type: ClassVar[str] = "S3"
    vendor: ClassVar[str] = "files.s3"
    config_model: ClassVar[builtins.type[Value]] = S3Config
    secret_fields: ClassVar[tuple[str, ...]] = ("accessKeyId", "secretAccessKey", "sessionToken")

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `S3Config`.
        """
        self._s3 = S3Config.from_json(dict(spec.config))
        self._spec = spec
        super().__init__(spec.endpoint_id, self._s3.bucket, self._s3)

    def open_store(self) -> pafs.FileSystem:
        """A new client with the connector's keys, never with this machine's own.

        Raises:
            AuthenticationFailedError: The connector has no keys and its bucket is not public.
        """
        config, secrets = self._s3, self._spec.secrets
        key, secret = secrets.get("accessKeyId"), secrets.get("secretAccessKey")
        if not config.anonymous and not (key and secret):
            raise AuthenticationFailedError(
                f"the connector to bucket {config.bucket} needs accessKeyId and secretAccessKey"
            )
        where = urlsplit(config.endpoint_override or "")
        return pafs.S3FileSystem(
            **({"anonymous": True} if config.anonymous else {"access_key": key}),
            secret_key=None if config.anonymous else secret,
            session_token=None if config.anonymous else secrets.get("sessionToken"),
            region=config.region,
            scheme=where.scheme or "https",
            endpoint_override=where.netloc or None,
            connect_timeout=config.connect_timeout_s,
            request_timeout=config.read_timeout_s,
            tls_ca_file_path=config.ssl_root_cert,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
        )

    def _version(self) -> str:
        return "S3 2006-03-01"  # the protocol's version, which is all that there is
