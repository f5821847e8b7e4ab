"""Catalogs: how a sink's configuration becomes a PyIceberg catalog that this process shares.

SQLite is used by several processes at once. Three things keep `database is locked` away: the
write-ahead log (readers never block), a busy timeout far above any commit, and a file lock around
the creation of tables, which PyIceberg does as check-then-create. `synchronous` stays FULL, because
a commit that was reported must survive a power failure.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from matih_ray.errors import ConfigurationError, ValidationError
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sources.base import EndpointSpec

CATALOG_NAME = "matih"
# Longer than any commit waits for others: a commit holds SQLite's write lock for milliseconds.
SQLITE_BUSY_TIMEOUT_S = 60
# A catalog that does not accept a connection, or then does not answer, for this long is treated as
# unreachable.
CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60
# Two processes may create a SQL catalog's tables at the same moment; one of them then tries again.
CREATE_ATTEMPTS = 5

# Said here, because by default the library takes another one for some kinds of warehouses.
_DEFAULTS = {"py-io-impl": "matih_ray.sinks.iceberg.file_io.WarehouseIO"}
_SECRET_KEYS = re.compile(r"token|secret|credential|password|key|sas|uri|auth", re.IGNORECASE)


class IcebergSinkConfig(Value):
    """Configuration of a registered Iceberg sink.

    `uri` is a SQLAlchemy URL (`sqlite:///…`, `postgresql+psycopg2://…`) or the address of a REST
    catalog. A URI with a password and secret properties go to the credential store, as the secrets
    `uri` and `properties` (a JSON object of PyIceberg properties).
    """

    catalog_type: Literal["sql", "rest"] = "sql"
    uri: str | None = None
    warehouse: str | None = None
    properties: dict[str, str] = {}


@dataclass(frozen=True)
class CatalogConfig:
    """A catalog's kind and PyIceberg properties; they hold secrets and are left out of `repr`."""

    kind: Literal["sql", "rest"]
    properties: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> CatalogConfig:
        """The built-in sink's catalog; a SQLite file and a warehouse under `home` by default.

        Raises:
            ConfigurationError: A property is not what it should be.
        """
        home = settings.home.absolute() / "iceberg"
        uri = settings.iceberg_catalog_uri
        if uri is None and settings.iceberg_catalog_type == "rest":
            raise ConfigurationError(
                "a REST catalog needs its address: set MATIH_ICEBERG_CATALOG_URI",
                setting="iceberg_catalog_uri",
            )
        properties = _properties(
            settings.iceberg_properties.get_secret_value(), "MATIH_ICEBERG_PROPERTIES"
        )
        properties = {**_DEFAULTS, **properties}
        properties["uri"] = uri.get_secret_value() if uri else _sqlite_url(home / "catalog.db")
        if settings.iceberg_warehouse is not None:
            properties["warehouse"] = _location(settings.iceberg_warehouse)
        elif settings.iceberg_catalog_type == "sql":
            properties["warehouse"] = _location(str(home / "warehouse"))
        return cls(settings.iceberg_catalog_type, properties)

    @classmethod
    def from_spec(cls, spec: EndpointSpec) -> CatalogConfig:
        """A registered sink's catalog.

        Raises:
            ValidationError: The configuration is not an `IcebergSinkConfig`, or has no URI.
        """
        config = IcebergSinkConfig.from_json(dict(spec.config))
        uri = spec.secrets.get("uri", config.uri)
        if uri is None:
            raise ValidationError(f"sink {spec.name}: uri is missing", field="uri")
        secret = _properties(spec.secrets.get("properties", "{}"), f"secrets of {spec.name}")
        properties = {**_DEFAULTS, **config.properties, **secret, "uri": uri}
        if config.warehouse is not None:
            properties["warehouse"] = _location(config.warehouse)
        elif config.catalog_type == "sql":
            raise ValidationError(f"sink {spec.name}: warehouse is missing", field="warehouse")
        return cls(config.catalog_type, properties)

    def redact(self, text: str) -> str:
        """The text without any secret of this configuration."""
        secrets = {value for key, value in self.properties.items() if _SECRET_KEYS.search(key)}
        if password := re.search(r"//[^/@]*:([^/@]+)@", self.properties.get("uri", "")):
            secrets.add(password.group(1))
        # an OAuth client's id and secret come as one property, and servers may repeat the latter
        secrets.add(self.properties.get("credential", "").partition(":")[2])
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "…") if len(secret) > 2 else text
        return text


def open_catalog(config: CatalogConfig) -> Catalog:
    """The catalog of this configuration, one for each process.

    Kept for the life of the process: opening one costs a connection and some queries, and catalogs
    are safe to share between threads. Exceptions are the libraries' own.
    """
    # A forked child must not use its parent's connections, hence the process id.
    key = (os.getpid(), config.kind, frozenset(config.properties.items()))
    with _CATALOGS_LOCK:
        catalog = _CATALOGS.get(key)
        if catalog is None:
            opened = _open_rest(config) if config.kind == "rest" else _open_sql(config)
            catalog = _CATALOGS[key] = opened
        return catalog


_CATALOGS: dict[tuple[Any, ...], Catalog] = {}
_CATALOGS_LOCK = threading.Lock()


@atexit.register
def _close_catalogs() -> None:
    """Close this process's connections in order; a parent's are not ours to close."""
    for (process_id, *_), catalog in _CATALOGS.items():
        if process_id == os.getpid() and isinstance(catalog, SqlCatalog):
            catalog.close()


_TIMEOUTS = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)


class _PatientAdapter(HTTPAdapter):
    """Gives every request a timeout; the library's session has none and would wait for ever."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - the signature is the library's
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002 - the signature is the library's
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        return super().send(request, stream, timeout or _TIMEOUTS, verify, cert, proxies)


class _PatientRestCatalog(RestCatalog):
    def _create_session(self) -> Session:
        session = super()._create_session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _PatientAdapter())
        return session


def _open_rest(config: CatalogConfig) -> Catalog:
    return _PatientRestCatalog(CATALOG_NAME, **config.properties)


def _open_sql(config: CatalogConfig) -> Catalog:
    try:
        url = make_url(config.properties["uri"])
    except ArgumentError:
        raise ConfigurationError(
            "the Iceberg catalog's URI is not a database URL, such as sqlite:////path/catalog.db "
            "or postgresql+psycopg2://user@host/database",
            setting="iceberg_catalog_uri",
        ) from None
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database).absolute()
        url = url.set(database=str(path)).update_query_dict({"timeout": str(SQLITE_BUSY_TIMEOUT_S)})
        with _sqlite_ready(path):
            return SqlCatalog(CATALOG_NAME, **{**config.properties, "uri": _text(url)})
    if url.get_backend_name() == "postgresql":
        waits = {
            "connect_timeout": str(CONNECT_TIMEOUT_S),
            "tcp_user_timeout": str(ANSWER_TIMEOUT_S * 1000),
        }
        url = url.set(query={**waits, **url.query})
    return _create_sql({"pool_pre_ping": "true", **config.properties, "uri": _text(url)})


def _create_sql(properties: Mapping[str, str]) -> Catalog:
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            return SqlCatalog(CATALOG_NAME, **properties)
        except (IntegrityError, ProgrammingError):
            if attempt == CREATE_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


@contextmanager
def _sqlite_ready(path: Path) -> Iterator[None]:
    """A database file in write-ahead mode, locked against others that also want to create it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with closing(sqlite3.connect(path, timeout=SQLITE_BUSY_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        yield


def _properties(text: str, where: str) -> dict[str, str]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        raise ConfigurationError(f"{where}: not a JSON object of PyIceberg properties")
    return {str(key): str(value) for key, value in parsed.items()}


def _sqlite_url(path: Path) -> str:
    return _text(URL.create("sqlite", database=str(path)))


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _location(warehouse: str) -> str:
    """An absolute location: paths become file URIs, everything with a scheme stays."""
    if "://" in warehouse or warehouse.startswith("file:"):
        return warehouse.rstrip("/")
    return f"file://{Path(warehouse).absolute()}"
