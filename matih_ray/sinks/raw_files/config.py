"""Where the files are: the configuration of a sink endpoint, or the operator's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pyarrow import fs
from pydantic import Field

from matih_ray.errors import ConfigurationError, ValidationError
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.raw_files.storage import HdfsCreation, LocalCreation, Storage, mapped
from matih_ray.sources.base import EndpointSpec

S3_SECRETS = ("accessKeyId", "secretAccessKey", "sessionToken")
HDFS_PORT = 8020
_PORTS = {"http": 80, "https": 443}
_URL = r"^https?://[^/?#@]+(/[^?#]*)?$"


class RawFilesConfig(Value):
    """Configuration of a registered sink of the type `raw`.

    `location` is `s3://bucket/prefix` or `hdfs://host:8020/path`; keys of S3 are the secrets
    `accessKeyId`, `secretAccessKey` and `sessionToken`. With a `catalogUri`, the address of a REST
    catalog, every table is also shown as an Iceberg table there; secret properties of the catalog
    are the secret `catalogProperties`, a JSON object.
    """

    location: Annotated[str, Field(pattern=r"^(s3|hdfs)://[^/?#]+(/[^?#]*)?$")]
    region: str | None = None
    endpoint_override: Annotated[str | None, Field(pattern=_URL)] = None
    catalog_uri: Annotated[str | None, Field(pattern=_URL)] = None
    catalog_properties: dict[str, str] = {}


@dataclass(frozen=True)
class Place:
    """A location, and the catalog in which its tables are registered, if any."""

    location: str
    region: str | None = None
    endpoint_override: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    catalog: CatalogConfig | None = None

    @classmethod
    def from_spec(cls, spec: EndpointSpec) -> Place:
        """A registered sink's place.

        Raises:
            ValidationError: The configuration does not fit, or has no keys.
            HostNotAllowedError: The operator does not allow the store's host.
        """
        config = RawFilesConfig.from_json(dict(spec.config))
        secrets = {name: spec.secrets[name] for name in S3_SECRETS if name in spec.secrets}
        parts = urlsplit(config.location)
        if parts.scheme == "hdfs":
            spec.host_policy.resolve_allowed(parts.hostname or "", parts.port or HDFS_PORT)
        elif missing := [name for name in S3_SECRETS[:2] if name not in secrets]:
            # never this machine's own: they are not the tenant's
            raise ValidationError(
                f"sink {spec.name}: the secret {missing[0]} is missing", field=missing[0]
            )
        for url in filter(None, (config.endpoint_override, config.catalog_uri)):
            where = urlsplit(url)
            port = where.port or _PORTS[where.scheme]
            spec.host_policy.resolve_allowed(where.hostname or "", port)
        return cls(
            config.location.rstrip("/"),
            config.region,
            config.endpoint_override,
            secrets,
            _catalog(config, spec),
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Place:
        """The built-in sink's place: a directory under `home` unless another is set.

        Raises:
            ConfigurationError: The setting names no storage that can be used.
        """
        location = settings.raw_location or str(settings.home.absolute() / "raw")
        catalog = CatalogConfig.from_settings(settings) if settings.raw_registered else None
        return cls(location.rstrip("/"), catalog=catalog)

    @property
    def uri(self) -> str:
        """The location with its scheme."""
        if "://" in self.location:
            return self.location
        return f"file://{Path(self.location).absolute()}"

    def open(self) -> Storage:
        """The storage; nothing is connected yet.

        Raises:
            ConfigurationError: There is no exclusive creation for this scheme, or no library.
        """
        if self.uri.startswith("file://"):
            root = self.uri.removeprefix("file://")
            return Storage(fs.LocalFileSystem(), root, LocalCreation(), renames=True)
        parts = urlsplit(self.uri)
        path = parts.path.strip("/")
        if parts.scheme == "s3":
            from matih_ray.sinks.raw_files.s3 import S3Place  # boto3 is an extra

            bucket = S3Place(parts.netloc, self.region, self.endpoint_override, self.secrets)
            with mapped(f"open {self.location}"):
                return bucket.open(path)
        if parts.scheme == "hdfs":
            return _hdfs(parts.hostname or "", parts.port or HDFS_PORT, f"/{path}")
        raise ConfigurationError(
            f"raw files cannot be kept in {parts.scheme}://, where a commit cannot be told from "
            "another; use a directory, s3:// or hdfs://",
            setting="raw_location",
        )


def _hdfs(host: str, port: int, path: str) -> Storage:
    try:
        filesystem = fs.HadoopFileSystem(host, port)
    except OSError as error:
        if "libhdfs" not in str(error) and "libjvm" not in str(error):
            with mapped(f"connect to hdfs://{host}:{port}"):
                raise
        raise ConfigurationError(
            "hdfs:// needs Hadoop's libhdfs and Java on every node: see ARROW_LIBHDFS_DIR and "
            "CLASSPATH in pyarrow's manual",
            setting="raw_location",
        ) from None
    return Storage(filesystem, path, HdfsCreation(filesystem), renames=True)


def _catalog(config: RawFilesConfig, spec: EndpointSpec) -> CatalogConfig | None:
    if config.catalog_uri is None:
        return None
    try:
        secret = json.loads(spec.secrets.get("catalogProperties", "{}"))
    except json.JSONDecodeError:
        raise ValidationError(
            f"sink {spec.name}: catalogProperties is no JSON object", field="catalogProperties"
        ) from None
    keys = {
        "s3.endpoint": config.endpoint_override,
        "s3.region": config.region,
        "s3.access-key-id": spec.secrets.get("accessKeyId"),
        "s3.secret-access-key": spec.secrets.get("secretAccessKey"),
        "s3.session-token": spec.secrets.get("sessionToken"),
    }
    properties = {name: value for name, value in keys.items() if value is not None}
    return CatalogConfig(
        "rest", {**properties, **config.catalog_properties, **secret, "uri": config.catalog_uri}
    )
