"""Clients: opened with options under which BSON is decoded exactly, one for each endpoint."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from matih_ray.errors import (
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    SourceError,
    SourceTimeoutError,
)
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mongodb.config import MongoConfig
from matih_ray.sources.mongodb.failures import mapped_errors, typed

# How our connections are recognised in the server's log and `currentOp`.
APPLICATION_NAME = "matih-ray"
# Python's datetime ends with the year 9999 and MongoDB's dates do not, so dates stay milliseconds.
# UUIDs stay binary with their subtype. Both are pymongo's documented ways to decode without loss.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS
)
UNAUTHORIZED = 13
# pymongo knows why a server cannot be used when an attempt has ended: a handshake that hangs must
# be given up before the search for a server is.
SELECTION_MARGIN_MS = 2000

MongoDocument = dict[str, Any]
MongoCollection = Collection[MongoDocument]


def decoded(batch: Any) -> Iterator[MongoDocument]:
    """The documents of a raw batch: bytes, whatever pymongo's annotations say."""
    return bson.decode_iter(batch, CODEC)


class Sessions:
    """The client of one endpoint, connected on first use. Safe to use from several threads."""

    def __init__(self, spec: EndpointSpec) -> None:
        self._config = MongoConfig.from_json(dict(spec.config))
        self._password = spec.secrets.get("password")
        self._client: MongoClient[MongoDocument] | None = None

    @property
    def name(self) -> str:
        """The database's name."""
        return self._config.database

    @property
    def address(self) -> str:
        """Host, port and database, for messages."""
        return f"{self._config.host}:{self._config.port}/{self._config.database}"

    def database(self) -> Database[MongoDocument]:
        """The configured database. Documents are read as a majority of a replica set has them, so
        that none is loaded that a failover takes back.

        Raises:
            SourceError: With one of the seven stable connectivity codes.
        """
        if self._client is None:
            self._client = self._connected()
        return self._client.get_database(
            self._config.database, codec_options=CODEC, read_concern=ReadConcern("majority")
        )

    def ping(self) -> tuple[float, str]:
        """Log in with a new client; milliseconds until it answered, and the server's version.

        Raises:
            SourceError: With one of the seven stable connectivity codes.
        """
        started = time.monotonic()
        client = self._connected()
        try:
            with mapped_errors(f"testing {self.address}"):
                version = str(client.server_info()["version"])
                latency_ms = (time.monotonic() - started) * 1000
                self._check_database(client)
        finally:
            client.close()
        return latency_ms, version

    def close(self) -> None:
        """Close the client. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> MongoClient[MongoDocument]:
        """A client that has logged in."""
        self._check_reachable()
        client: MongoClient[MongoDocument] | None = None
        try:
            client = MongoClient(**self._options())
            client.admin.command("ping")
        except PyMongoError as error:
            if client is not None:
                client.close()
            raise typed(error, f"cannot connect to {self.address}") from None
        return client

    def _check_reachable(self) -> None:
        """Connect to one of the servers by TCP: pymongo would try until its time is up, and report
        a port that is closed as a time-out."""
        failure: SourceError | None = None
        for host, port in self._seeds():
            try:
                socket.create_connection((host, port), self._config.connect_timeout_s).close()
            except OSError as error:
                failure = failure or _unreachable(error, f"{host}:{port}")
            else:
                return
        if failure is not None:
            raise failure

    def _seeds(self) -> list[tuple[str, int]]:
        config = self._config
        others = [member.rpartition(":") for member in config.hosts]
        return [(config.host, config.port), *((host, int(port)) for host, _, port in others)]

    def _options(self) -> Mapping[str, Any]:
        config = self._config
        timeout_ms = config.connect_timeout_s * 1000
        options: dict[str, Any] = {
            "host": [f"{host}:{port}" for host, port in self._seeds()],
            "appname": APPLICATION_NAME,
            "connectTimeoutMS": timeout_ms,
            "serverSelectionTimeoutMS": timeout_ms + SELECTION_MARGIN_MS,
            "readPreference": config.read_preference,
        }
        if config.replica_set is not None:
            options["replicaSet"] = config.replica_set
        elif not config.hosts:
            options["directConnection"] = True
        if config.user is not None:
            options |= {
                "username": config.user,
                "password": self._password or "",
                "authSource": config.auth_source,
            }
            if config.auth_mechanism is not None:
                options["authMechanism"] = config.auth_mechanism
        return options | _tls_options(config)

    def _check_database(self, client: MongoClient[MongoDocument]) -> None:
        """MongoDB takes any name for that of an empty database, so it is asked which there are."""
        name = self._config.database
        try:
            names = client.list_database_names()
        except OperationFailure as error:
            if error.code != UNAUTHORIZED:
                raise
            # a role for one database only; listing that one is then what must be allowed
            client[name].list_collection_names(authorizedCollections=True)
            return
        if name not in names:
            raise DatabaseNotFoundError(
                f"{self.address}: there is no database {name!r} with any collection that "
                f"{self._config.user or 'an unauthenticated user'} can see"
            )


def _tls_options(config: MongoConfig) -> dict[str, Any]:
    if config.ssl_mode == "disable":
        return {"tls": False}
    options: dict[str, Any] = {"tls": True}
    if config.ssl_mode == "require":
        options["tlsAllowInvalidCertificates"] = True
    elif config.ssl_root_cert not in (None, "system"):
        options["tlsCAFile"] = config.ssl_root_cert
    if config.ssl_mode == "verify-ca":
        options["tlsAllowInvalidHostnames"] = True
    return options


def _unreachable(error: OSError, address: str) -> SourceError:
    reason = error.strerror or str(error)
    kind: type[SourceError] = ConnectionRefusedByHostError
    if isinstance(error, socket.gaierror):
        kind = DnsResolutionError
    elif isinstance(error, TimeoutError):
        kind = SourceTimeoutError
    return kind(f"cannot connect to {address}: {reason}")
