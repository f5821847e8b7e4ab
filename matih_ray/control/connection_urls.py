"""Connection strings as clients of previews write them: a URL of a database, or a JSON object.

The JSON form is the ingestion specification's: `{"templateId": "JIRA", "parameters": {…},
"dataset": {"unitId": "jira.issues"}}`. `parameters` are the connector type's configuration and
secrets together; which is which, the type says. Nothing of it is stored, and no error repeats it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from matih_ray.control.connector_types import checked_config, checked_secrets, connector_type
from matih_ray.control.ports import Ports
from matih_ray.errors import UnknownPluginError, ValidationError
from matih_ray.model.ids import UnitId
from matih_ray.model.value import JsonValue

FIELD = "connectionUrl"
MAX_URL_CHARS = 10_000
_SCHEMES = {"postgresql": "POSTGRESQL", "postgres": "POSTGRESQL", "mysql": "MYSQL"} | {
    "redshift": "REDSHIFT"
}
_SCHEME = re.compile(r"^(?:jdbc:)?([a-z]+)(?:\+[a-z0-9]+)?://")
# What the seeds call templates: `jira.http`, `http.jira`, `jdbc.postgres`.
_OTHER_NAMES = {"POSTGRES": "POSTGRESQL", "SQLSERVER": "SQL_SERVER", "DATABRICKS": "DATABRICKS_SQL"}
_PARAMETERS = {"user": "user", "username": "user", "password": "password", "sslmode": "sslMode"}


@dataclass(frozen=True)
class Connection:
    """A connector that is only described. Its secrets are left out of `repr`."""

    type: str
    config: dict[str, JsonValue]
    unit_id: UnitId | None
    secrets: dict[str, str] = field(default_factory=dict, repr=False)


def parse_connection(ports: Ports, text: str) -> Connection:
    """What a connection string says, checked by the connector type that it names.

    Raises:
        ValidationError: It is neither form, or the type does not take it.
    """
    if len(text) > MAX_URL_CHARS:
        raise _invalid(f"is longer than {MAX_URL_CHARS} characters")
    name, parameters, unit_id = _object(text) if text.lstrip().startswith("{") else _url(text)
    type_name = _type_of(ports, name)
    type_ = connector_type(ports, type_name)
    secrets = {key: value for key, value in parameters.items() if key in type_.secret_fields}
    plain = {key: value for key, value in parameters.items() if key not in secrets}
    if not all(isinstance(value, str) for value in secrets.values()):
        raise _invalid("has a secret that is not text")
    return Connection(
        type=type_name,
        config=checked_config(type_, plain),
        unit_id=unit_id,
        secrets=checked_secrets(type_, {key: str(value) for key, value in secrets.items()}),
    )


def _object(text: str) -> tuple[str, dict[str, JsonValue], UnitId | None]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("is no JSON object") from None
    name, parameters = given.get("templateId"), given.get("parameters", {})
    dataset = given.get("dataset", {})
    if not isinstance(name, str) or not isinstance(parameters, dict):
        raise _invalid("needs templateId, and parameters as an object")
    if unknown := sorted(set(given) - {"templateId", "parameters", "dataset"}):
        raise _invalid(f"has {len(unknown)} unknown fields beside templateId, parameters, dataset")
    unit_id = dataset.get("unitId") if isinstance(dataset, dict) else None
    return name, parameters, UnitId(unit_id) if isinstance(unit_id, str) else None


def _url(text: str) -> tuple[str, dict[str, JsonValue], UnitId | None]:
    match = _SCHEME.match(text)
    if match is None or match[1] not in _SCHEMES:
        raise _invalid(f"is neither a JSON object nor a URL of {', '.join(sorted(_SCHEMES))}")
    try:
        parts = urlsplit(f"{match[1]}://{text[match.end() :]}")
        port = parts.port
    except ValueError:
        raise _invalid("has no valid host and port") from None
    found: dict[str, JsonValue] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key.lower() not in _PARAMETERS:
            raise _invalid("has a parameter besides user, password and sslmode")
        found[_PARAMETERS[key.lower()]] = value
    named: dict[str, JsonValue] = {
        "host": parts.hostname,
        "port": port,
        "database": unquote(parts.path.removeprefix("/")) or None,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    given = {key: value for key, value in named.items() if value is not None}
    return _SCHEMES[match[1]], {**found, **given}, None


def _type_of(ports: Ports, name: str) -> str:
    known = ports.registry.names("sources")
    for part in (name, *name.split(".")):
        upper = part.upper()
        if (found := _OTHER_NAMES.get(upper, upper)) in known:
            return found
    raise UnknownPluginError(
        f"no connector type is named {name[:100]!r}; known: {', '.join(known)}", field=FIELD
    )


def _invalid(why: str) -> ValidationError:
    return ValidationError(f"connectionUrl {why}", field=FIELD)
