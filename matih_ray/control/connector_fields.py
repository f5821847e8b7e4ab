"""Between a connector as people write it and an endpoint as it is stored.

Seed 001 gives every connector the same fields (host, port, database, schema, TLS, credentials,
metadata). A connector type knows some of them in its configuration; the others are kept as
attributes, so that a client reads back what it wrote. Of the credentials, what the type calls
secret goes to the credential store alone; the rest (user, role, warehouse) is stored there as well,
and in the configuration, which is what sources are built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from matih_ray.control.connector_types import (
    ConnectorType,
    checked_config,
    checked_secrets,
    refuse_secrets,
)
from matih_ray.errors import ValidationError
from matih_ray.model.value import JsonValue, Value

# The seed says `username`, the types say `user`.
_ALIASES = {"username": "user"}
# What `sslEnabled` alone means: the strictest mode, or none.
SSL_MODES = {True: "verify-full", False: "disable"}


class ConnectorSettings(Value):
    """What can be changed about a connector. `metadata` holds further fields of its type."""

    host: Annotated[str | None, Field(max_length=255)] = None
    port: Annotated[int | None, Field(ge=1, le=65_535)] = None
    database: str | None = None
    schema_: Annotated[str | None, Field(alias="schema", description="Default schema")] = None
    ssl_enabled: bool | None = None
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    metadata: dict[str, JsonValue] = {}


@dataclass(frozen=True)
class StoredParts:
    """A connector's fields, sorted by where they are kept. Secrets are left out of `repr`."""

    config: dict[str, JsonValue]
    attributes: dict[str, JsonValue]


def stored_parts(
    type_: ConnectorType,
    settings: ConnectorSettings,
    credentials: Mapping[str, SecretStr],
    kept: Mapping[str, JsonValue] | None = None,
) -> StoredParts:
    """The configuration and attributes of a connector.

    Args:
        type_: The connector's type.
        settings: What the caller wrote.
        credentials: What the caller wrote.
        kept: Configuration that stays unless the caller wrote it anew (see `login_fields`).

    Raises:
        ValidationError: A field is wrong, unknown or holds a secret; no value is repeated.
    """
    refuse_secrets(type_, settings.metadata, "metadata")
    known = known_fields(type_)
    config: dict[str, JsonValue] = dict(kept or {})
    attributes: dict[str, JsonValue] = {}
    for name, value in {**settings.metadata, **_standard(settings)}.items():
        (config if name in known else attributes)[name] = value
    for name in _plain(type_, credentials):
        config[_field_of(name)] = credentials[name].get_secret_value()
    refuse_secrets(type_, attributes, "metadata")
    return StoredParts(checked_config(type_, config), attributes)


def stored_credentials(
    type_: ConnectorType, credentials: Mapping[str, SecretStr]
) -> dict[str, str]:
    """What goes to the credential store.

    Raises:
        ValidationError: An unknown field, or a value that is too large.
    """
    plain = {name: credentials[name].get_secret_value() for name in _plain(type_, credentials)}
    secret = {
        name: value.get_secret_value() for name, value in credentials.items() if name not in plain
    }
    return {**plain, **checked_secrets(type_, secret)}


def login_fields(
    config: Mapping[str, JsonValue], stored_names: Iterable[str]
) -> dict[str, JsonValue]:
    """The part of a stored configuration that came with the credentials of these names."""
    names = {"user", *map(_field_of, stored_names)}
    return {name: value for name, value in config.items() if name in names}


def known_fields(type_: ConnectorType) -> set[str]:
    """Names of the type's configuration in JSON."""
    fields = type_.config_model.model_fields
    return {str(info.alias or name) for name, info in fields.items()}


def _standard(settings: ConnectorSettings) -> dict[str, JsonValue]:
    mode = settings.ssl_mode
    if mode is None and settings.ssl_enabled is not None:
        mode = SSL_MODES[settings.ssl_enabled]  # type: ignore[assignment]  # one of the literals
    if mode in ("disable", "prefer") and settings.ssl_enabled:
        raise ValidationError(f"sslEnabled with sslMode {mode} is no TLS", field="sslMode")
    values: dict[str, JsonValue] = {
        "host": settings.host,
        "port": settings.port,
        "database": settings.database,
        "schema": settings.schema_,
        "sslMode": mode,
    }
    return {name: value for name, value in values.items() if value is not None}


def _plain(type_: ConnectorType, credentials: Mapping[str, SecretStr]) -> list[str]:
    """Credentials that are no secrets but fields of the type: who logs in, as what."""
    known = known_fields(type_)
    return [
        name for name in credentials if name not in type_.secret_fields and _field_of(name) in known
    ]


def _field_of(name: str) -> str:
    return _ALIASES.get(name, name)
