"""Where the tables are: the configuration of a sink endpoint, or the operator's settings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field

from matih_ray.errors import ConfigurationError, ValidationError
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sources.base import EndpointSpec

DEFAULT_PORT = 5432
# A name of PostgreSQL has at most 63 bytes; the longest that follows a prefix is a stage's.
MAX_NAME_CHARS = 63
MAX_PREFIX_CHARS = 20

_NAME = r"^[A-Za-z_][A-Za-z0-9_$]*$"
_SCHEMES = re.compile(r"^(?:jdbc:)?postgres(?:ql)?(?:\+psycopg2?)?://")
# What a connection string may say besides: nothing that names files or other hosts.
_PARAMETERS = frozenset({"sslmode", "connect_timeout"})

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class CdmSinkConfig(Value):
    """Configuration of a registered CDM sink: the template `cdm.jdbc`.

    `connectionUrl` is `postgresql://user@host:port/database?sslmode=require`, also with `jdbc:` in
    front. The password is the secret `password`, or a part of the secret `connectionUrl`.
    """

    connection_url: Annotated[str | None, Field(description="postgresql://user@host/db")] = None
    table_schema: Annotated[
        str, Field(alias="schema", pattern=_NAME, max_length=MAX_NAME_CHARS)
    ] = "cdm"
    table_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]*$", max_length=MAX_PREFIX_CHARS)] = (
        "cdm_"
    )


@dataclass(frozen=True)
class Login:
    """What libpq is told. The password is left out of `repr`."""

    host: str
    port: int
    database: str
    user: str
    parameters: tuple[tuple[str, str], ...] = ()
    password: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Host, port and database, for messages."""
        return f"{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True)
class Place:
    """A database, and the names of our tables in it. `resolve` gives addresses to connect to."""

    login: Login
    schema: str
    prefix: str
    resolve: Callable[[str, int], tuple[Address, ...]] = field(compare=False, repr=False)

    @classmethod
    def from_spec(cls, spec: EndpointSpec) -> Place:
        """A registered sink's place.

        Raises:
            ValidationError: There is no connection string, or it is none of PostgreSQL.
        """
        config = CdmSinkConfig.from_json(dict(spec.config))
        url = spec.secrets.get("connectionUrl", config.connection_url)
        if url is None:
            raise ValidationError(
                f"sink {spec.name}: connectionUrl is missing", field="connectionUrl"
            )
        try:
            login = parse_login(url, spec.secrets.get("password"))
        except ValueError as error:
            raise ValidationError(
                f"sink {spec.name}: connectionUrl {error}", field="connectionUrl"
            ) from None
        policy = spec.host_policy
        return cls(login, config.table_schema, config.table_prefix, policy.resolve_allowed)

    @classmethod
    def from_settings(cls, settings: Settings) -> Place:
        """The operator's own database.

        Raises:
            ConfigurationError: None is set, or the setting is no connection string.
        """
        url = settings.cdm_database_url
        if url is None:
            raise ConfigurationError(
                "there is no database for the built-in sink cdm.jdbc: set CDM_WORK_DATABASE_URL, "
                "or register an endpoint of type cdm.jdbc",
                setting="cdm_database_url",
            )
        try:
            login = parse_login(url.get_secret_value(), None)
        except ValueError as error:
            raise ConfigurationError(
                f"CDM_WORK_DATABASE_URL {error}", setting="cdm_database_url"
            ) from None
        # whoever sets the environment may name any host
        return cls(login, settings.cdm_schema, settings.cdm_table_prefix, lambda _host, _port: ())


def parse_login(url: str, password: str | None) -> Login:
    """A connection string in parts. Raises `ValueError`, which repeats none of it."""
    match = _SCHEMES.match(url)
    if match is None:
        raise ValueError("does not begin with postgresql://")
    try:
        parts = urlsplit("postgresql://" + url[match.end() :])
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ValueError("has no valid host and port") from None
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    user = parts.username or parameters.pop("user", "")
    password = password or parts.password or parameters.pop("password", None)
    parameters.pop("password", None)
    database = unquote(parts.path.removeprefix("/"))
    if not parts.hostname or not user or not database:
        raise ValueError("names no host, user or database: postgresql://user@host:5432/database")
    if unknown := sorted(set(parameters) - _PARAMETERS):
        raise ValueError(f"has a parameter {unknown[0][:MAX_NAME_CHARS]!r}, which is not known")
    return Login(
        host=parts.hostname,
        port=port,
        database=database,
        user=unquote(user),
        parameters=tuple(sorted(parameters.items())),
        password=None if password is None else unquote(password),
    )
