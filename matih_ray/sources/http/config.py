"""Configuration of REST and GraphQL connectors; credentials are not part of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, model_validator

from matih_ray.model.value import JsonValue, Value

Scalar = str | int | bool

# Where a credential could be put by mistake; it belongs under `secrets`.
_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|api-?key", re.IGNORECASE)
_FIELD_TYPE = (
    r"^(text|integer|number|double|boolean|date|timestamp|datetime|json"
    r"|decimal\(\d{1,2}, ?\d{1,2}\))$"
)


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, password, query or fragment")
    try:
        httpx.URL(url)
        parts.port  # noqa: B018 raises for a number that is no port
    except (httpx.InvalidURL, ValueError):
        raise ValueError("is not a valid address") from None
    return url


def _public_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if _SECRET_HEADER.search(name):
            raise ValueError(f"header {name!r} holds a credential; use auth and secrets")
        if not re.fullmatch(r"[!-9;-~]+", name) or re.search(r"[\r\n\x00]", value):
            raise ValueError(f"{name!r} is not a header")
    return headers


WebAddress = Annotated[str, Field(min_length=8, max_length=2000), AfterValidator(_web_address)]
Headers = Annotated[dict[str, str], AfterValidator(_public_headers)]
Path = Annotated[str, Field(pattern=r"^[^.\x00]+(\.[^.\x00]+)*$", description="Names with dots")]
PageSize = Annotated[int, Field(ge=1, le=10_000)]


class Auth(Value):
    """How requests are authenticated. The secrets are `token` (bearer), `password` (basic),
    `apiKey` and `clientSecret` (oauth2)."""

    kind: Literal["none", "bearer", "basic", "apiKey", "oauth2"] = "none"
    user: str | None = None
    name: Annotated[
        str, Field(pattern=r"^[\w.~-]{1,100}$", description="Header or parameter of the API key")
    ] = "X-API-Key"
    location: Literal["header", "query"] = "header"
    client_id: str | None = None
    scope: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Auth:
        if self.kind == "basic" and self.user is None:
            raise ValueError("basic authentication needs a user")
        if self.kind == "oauth2" and self.client_id is None:
            raise ValueError("oauth2 needs a clientId")
        return self


class Limits(Value):
    """Bounds of every request and read. A limit that is reached is an error, never a short read.

    Each process keeps the pace for itself: with slices in parallel the API sees a multiple of it.
    """

    requests_per_s: Annotated[float, Field(gt=0, le=1000)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=20)] = 5
    # The first wait of a retry, doubled each time, up to half a minute.
    retry_backoff_s: Annotated[float, Field(gt=0, le=60)] = 0.5
    request_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    connect_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    # One page with all its retries and waits: longer than most APIs ask to wait.
    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    # An answer is held whole and takes several times its size as Python objects.
    max_response_bytes: Annotated[int, Field(ge=1, le=1024**3)] = 32 * 1024 * 1024
    # Of one slice; ends paging that never ends by itself.
    max_pages: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    max_page_records: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000


class NoPages(Value):
    """One answer holds everything."""

    style: Literal["none"] = "none"


class NumberedPages(Value):
    """Pages have numbers; the first empty one ends the stream."""

    style: Literal["page"] = "page"
    param: str = "page"
    first: Annotated[int, Field(ge=0, le=1)] = 1
    size_param: str | None = "per_page"
    size: PageSize = 100
    total_path: Path | None = None


class OffsetPages(Value):
    """Pages begin at a number of records; the first empty one ends the stream."""

    style: Literal["offset"] = "offset"
    param: str = "offset"
    size_param: str = "limit"
    size: PageSize = 100
    total_path: Path | None = None


class CursorPages(Value):
    """An answer holds what asks for the next page; null, missing or empty ends the stream."""

    style: Literal["cursor"] = "cursor"
    param: str = "cursor"
    next_path: Path
    more_path: Path | None = None
    size_param: str | None = None
    size: PageSize = 100


class LinkPages(Value):
    """The header `Link` names the next page with `rel="next"` (RFC 8288)."""

    style: Literal["link"] = "link"
    size_param: str | None = None
    size: PageSize = 100


class NextUrlPages(Value):
    """An answer holds the next page's URL, absolute or relative."""

    style: Literal["nextUrl"] = "nextUrl"
    next_path: Path
    size_param: str | None = None
    size: PageSize = 100


Pagination = Annotated[
    NoPages | NumberedPages | OffsetPages | CursorPages | LinkPages | NextUrlPages,
    Field(discriminator="style"),
]


class Cursor(Value):
    """The top-level field that orders records for incremental runs.

    `param` asks for records from a value on, `upper_param` up to a value; whether the API includes
    the value itself does not matter. `probe` are parameters under which the first record is the one
    with the greatest value; an integer cursor needs them. `start` is below most values: ranges are
    cut from there on. `window_s` is the length of a slice of a timestamp cursor.
    """

    field: str
    type: Literal["timestamp", "integer"] = "timestamp"
    param: str
    upper_param: str | None = None
    format: Literal["iso8601", "epochS", "epochMs", "date"] = "iso8601"
    probe: dict[str, Scalar] | None = None
    start: str | int | None = None
    window_s: Annotated[int, Field(ge=1)] | None = None


class FieldType(Value):
    """One field of records; `json_values` says how each type arrives."""

    name: Annotated[str, Field(pattern=r"^[^$.\x00][^.\x00]{0,254}$")]
    type: Annotated[str, Field(pattern=_FIELD_TYPE)]


class Stream(Value):
    """What streams of both types declare.

    Fields without a column go to `_extra` as JSON, or are refused. A declared schema makes no
    sample necessary.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,200}$")]
    record_path: Path | None = None
    primary_key: tuple[str, ...] = ()
    cursor: Cursor | None = None
    fields: Annotated[tuple[FieldType, ...] | None, Field(alias="schema", max_length=500)] = None
    unknown_fields: Literal["extra", "refuse"] = "extra"

    @model_validator(mode="after")
    def _agree(self) -> Stream:
        if self.fields is not None:
            named = [*self.primary_key, *([self.cursor.field] if self.cursor else [])]
            declared = {field.name for field in self.fields}
            missing = [name for name in named if name not in declared]
            if missing:
                raise ValueError(f"the schema of {self.name} has no field {missing[0]!r}")
        return self


class RestStream(Stream):
    """One collection of a REST API."""

    path: Annotated[str, Field(pattern=r"^[^?#\s]*$")]
    params: dict[str, Scalar] = {}
    pagination: Pagination = NoPages()


class GraphqlStream(Stream):
    """One query. Under `relay` the record path leads to the connection, which the query must ask
    for `pageInfo { hasNextPage endCursor }` and `nodes` or `edges { node }`."""

    query: Annotated[str, Field(min_length=2, max_length=100_000)]
    variables: dict[str, JsonValue] = {}
    record_path: Path
    pagination: Literal["relay", "offset", "none"] = "relay"
    page_variable: str | None = None
    size_variable: str | None = None
    page_size: PageSize = 100
    total_path: Path | None = None


class _Connector(Value):
    """What both types declare about a server. `auth_url` is where oauth2 gets its tokens."""

    headers: Headers = {}
    auth: Auth = Auth()
    auth_url: WebAddress | None = None
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the system's if unset")
    ] = None
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _grantable(self) -> _Connector:
        if self.auth.kind == "oauth2" and self.auth_url is None:
            raise ValueError("oauth2 needs an authUrl")
        return self


def _named_once(streams: tuple[Stream, ...]) -> None:
    names = [stream.name for stream in streams]
    if len(set(names)) != len(names):
        raise ValueError("two streams have the same name")


class RestConfig(_Connector):
    """A REST API. `test_path` is asked by connectivity tests; the first stream if unset."""

    base_url: WebAddress
    test_path: str | None = None
    streams: Annotated[tuple[RestStream, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _unambiguous(self) -> RestConfig:
        _named_once(self.streams)
        return self


class GraphqlConfig(_Connector):
    """A GraphQL API."""

    url: WebAddress
    streams: Annotated[tuple[GraphqlStream, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _unambiguous(self) -> GraphqlConfig:
        _named_once(self.streams)
        return self
