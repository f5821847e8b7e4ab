"""Connection URLs: `postgresql://…`, `jdbc:…`, SQLAlchemy's, Snowflake's, `s3://…`. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from matih_ray.agent.templates import Template

URL = re.compile(r"(?:jdbc:)?[a-z][a-z0-9+]*://[^\s\"'`<>]+", re.IGNORECASE)
_S3_HTTP = re.compile(r"^(?:(?P<b>[\w.-]+)\.)?s3[.-](?P<r>[a-z0-9-]+)\.amazonaws\.com$")
_SNOWFLAKE_HOST = ".snowflakecomputing.com"


def scheme_of(url: str) -> str:
    """The scheme without `jdbc:` and without a driver's name."""
    scheme = url.partition("://")[0].lower().removeprefix("jdbc:")
    return scheme if scheme.startswith("mongodb+") else scheme.partition("+")[0]


def fields_of_url(url: str, template: Template) -> dict[str, str]:
    """Fields of the template, under their names, that a URL holds.

    The password may hold an `@` that should have been escaped: the last one before the path counts.
    """
    _, _, rest = url.rstrip(".,;)").partition("://")
    rest, _, query = rest.partition("?")
    login, _, place = rest.rpartition("@")
    authority, _, path = place.partition("/")
    found: dict[str, str] = {}
    user, has_password, password = login.partition(":")
    _put(found, "username", unquote(user))
    if has_password:
        _put(found, "password", unquote(password))
    if template.type == "SNOWFLAKE":
        found.update(_snowflake(authority, path))
    elif template.type == "S3":
        found.update(_s3(url, authority, path))
    else:
        found.update(_server(authority, path, template))
    found.update(_options(query, template))
    return {name: value for name, value in found.items() if template.field(name)}


def _server(authority: str, path: str, template: Template) -> dict[str, str]:
    host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "")
    found: dict[str, str] = {}
    _put(found, "host", host.strip("[]"))
    field = template.field("port")
    _put(found, "port", port or (field.default or "" if field and host else ""))
    _put(found, "database", unquote(path.partition("/")[0]))
    return found


def _snowflake(authority: str, path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    _put(found, "account", authority.partition(":")[0].removesuffix(_SNOWFLAKE_HOST))
    database, _, schema = path.partition("/")
    _put(found, "database", unquote(database))
    _put(found, "schema", unquote(schema.strip("/")))
    return found


def _s3(url: str, authority: str, path: str) -> dict[str, str]:
    if scheme_of(url) not in ("http", "https"):
        found = {"bucket": authority}
        _put(found, "prefix", path.strip("/"))
        return found
    match = _S3_HTTP.match(authority)
    if match is None:
        return {"endpoint": url.rstrip("/.,;)")}
    bucket = match["b"] or path.partition("/")[0]
    found = {"region": match["r"]}
    _put(found, "bucket", bucket)
    return found


_OPTIONS = {
    "user": "username", "username": "username", "password": "password", "sslmode": "ssl_mode",
    "ssl-mode": "ssl_mode", "currentschema": "schema", "schema": "schema", "db": "database",
    "database": "database", "warehouse": "warehouse", "role": "role", "region": "region",
    "account": "account",
}  # fmt: skip


def _options(query: str, template: Template) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query):
        known = _OPTIONS.get(name.lower())
        if known is not None and template.field(known):
            _put(found, known, value)
    return found


def _put(found: dict[str, str], name: str, value: str) -> None:
    if value:
        found[name] = value
