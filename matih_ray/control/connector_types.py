"""Connector types: which class a type names, and whether a configuration fits it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from matih_ray.control.ports import Ports
from matih_ray.errors import ValidationError
from matih_ray.model.value import JsonValue, Value
from matih_ray.registry import Kind
from matih_ray.state.base import EndpointRecord
from matih_ray.telemetry import is_secret_name, redact_text

# Certificates and key files are the largest secrets; a Kubernetes Secret holds 1 MB in all.
MAX_SECRET_BYTES = 64 * 1024
# Characters of a caller's own field name that a message repeats.
SHOWN_NAME_CHARS = 40


@dataclass(frozen=True)
class ConnectorType:
    """A source or a configurable sink, as far as its configuration goes.

    `vendor` is the family that state keys name (`jdbc.postgres`).
    """

    name: str
    kind: Kind
    config_model: type[Value]
    secret_fields: tuple[str, ...]
    vendor: str


def connector_type(ports: Ports, name: str) -> ConnectorType:
    """The connector type of that name.

    Raises:
        ValidationError: No such type, or a sink that tenants cannot configure.
        MissingExtraError: Its driver is not installed.
    """
    kinds: tuple[Kind, ...] = ("sources", "sinks")
    for kind in kinds:
        if name in ports.registry.names(kind):
            return _described(name, kind, ports.registry.resolve(kind, name))
    known = ", ".join(ports.registry.names("sources"))
    raise ValidationError(f"no connector type {_shown([name])}; known: {known}", field="type")


def _described(name: str, kind: Kind, plugin: Any) -> ConnectorType:
    config_model = getattr(plugin, "config_model", None)
    if config_model is None:
        raise ValidationError(
            f"{name} is configured by the operator; runs name it as their sink", field="type"
        )
    return ConnectorType(
        name=name,
        kind=kind,
        config_model=config_model,
        secret_fields=tuple(getattr(plugin, "secret_fields", ())),
        vendor=getattr(plugin, "vendor", name.lower()),
    )


def source_type(ports: Ports, endpoint: EndpointRecord) -> ConnectorType:
    """The connector type of an endpoint that has units.

    Raises:
        ValidationError: The endpoint is a sink.
    """
    type_ = connector_type(ports, endpoint.type)
    if type_.kind != "sources":
        raise ValidationError(
            f"{endpoint.name} is a {endpoint.type} sink; only sources have units",
            field="endpointId",
        )
    return type_


def checked_config(type_: ConnectorType, config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The configuration in its stored form, defaults included.

    Raises:
        ValidationError: A field is wrong or unknown, or holds a secret; no value is repeated.
    """
    refuse_secrets(type_, config, "config")
    try:
        return type_.config_model.from_json(dict(config)).to_dict()
    except ValidationError as error:
        raise ValidationError(
            f"config of {type_.name}: {error.message}", field=f"config.{error.context['field']}"
        ) from None


def refuse_secrets(type_: ConnectorType, document: Mapping[str, JsonValue], root: str) -> None:
    """Do nothing if nothing in the document looks like a secret; `root` names it in errors.

    Raises:
        ValidationError: Names the field; its value is not repeated.
    """
    fields = type_.config_model.model_fields
    declared = set(fields) | {info.alias for info in fields.values()}
    for path, value in _nodes(dict(document), (root,)):
        # some fields may be given either way, such as a URI with or without a password in it
        secret_name = path[-1] in type_.secret_fields or is_secret_name(path[-1])
        names_secret = secret_name and path[-1] not in declared
        if names_secret or (isinstance(value, str) and redact_text(value) != value):
            raise ValidationError(
                f"{'.'.join(path)} looks like a secret; put it under `secrets` "
                f"(this type has: {', '.join(type_.secret_fields) or 'none'})",
                field=".".join(path),
            )


def checked_secrets(type_: ConnectorType, secrets: Mapping[str, str]) -> dict[str, str]:
    """The secrets themselves, if this type has such fields.

    Raises:
        ValidationError: An unknown field, or a value that is too large.
    """
    unknown = sorted(set(secrets) - set(type_.secret_fields))
    if unknown:
        known = ", ".join(type_.secret_fields) or "none"
        raise ValidationError(
            f"{type_.name} has no secret {_shown(unknown)}; known: {known}", field="secrets"
        )
    for name, value in secrets.items():
        if len(value.encode()) > MAX_SECRET_BYTES:
            raise ValidationError(
                f"secret {name} is longer than {MAX_SECRET_BYTES} bytes", field=f"secrets.{name}"
            )
    return dict(secrets)


def _nodes(value: JsonValue, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    """Every value in a JSON document with the path of names and positions that leads to it."""
    yield path, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _nodes(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _nodes(item, (*path, str(number)))


def _shown(names: Iterable[str]) -> str:
    """A caller's own names, fit for a message."""
    return ", ".join(repr(re.sub(r"[^\w.-]", "?", name)[:SHOWN_NAME_CHARS]) for name in names)
