"""What routes share: who is asking, the runtime behind them, and pages with a way to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPBearer
from starlette.convertors import StringConvertor, register_url_convertor

from matih_ray.api.limits import Deadlines, Limits
from matih_ray.api.wire import PageBody
from matih_ray.control.authorization import Principal
from matih_ray.control.pages import DEFAULT_PAGE_ROWS, MAX_OFFSET, MAX_PAGE_ITEMS, Page
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import SourceCalls
from matih_ray.control.stream_jobs import Scripts
from matih_ray.model.ids import EndpointId, RunId, TenantId, UnitId

Stored = TypeVar("Stored")
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class Runtime:
    """What every route works with."""

    ports: Ports
    limits: Limits
    deadlines: Deadlines
    calls: SourceCalls
    scripts: Scripts


@dataclass(frozen=True)
class PageQuery:
    """Which page of a listing."""

    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET, description="Items to pass over")] = 0
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ITEMS, description="Items of the page")] = (
        DEFAULT_PAGE_ROWS
    )


class UnitIdConvertor(StringConvertor):
    """A unit id in a path: anything at all, slashes and line ends too, percent-encoded."""

    regex = "(?s:.+)"


register_url_convertor("unit_id", UnitIdConvertor())

# Only tells OpenAPI how to authenticate; `Authentication` has done it before any route is reached.
_BEARER = HTTPBearer(bearerFormat="JWT", auto_error=False)


def runtime_of(request: Request) -> Runtime:
    """The runtime that the application was made with."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def principal_of(request: Request, _: Annotated[object, Security(_BEARER)]) -> Principal:
    """Who is asking."""
    principal: Principal = request.state.principal
    return principal


TenantPath = Annotated[TenantId, Path(alias="tenantId")]
ConnectorPath = Annotated[EndpointId, Path(alias="connectorId")]
EndpointPath = Annotated[EndpointId, Path(alias="endpointId")]
UnitPath = Annotated[UnitId, Path(alias="unitId")]
RunPath = Annotated[RunId, Path(alias="runId")]
RuntimeOf = Annotated[Runtime, Depends(runtime_of)]
PrincipalOf = Annotated[Principal, Depends(principal_of)]
PageOf = Annotated[PageQuery, Depends()]


def page_body(
    request: Request, page: Page[Stored], shown: Callable[[Stored], Shown]
) -> PageBody[Shown]:
    """A page in its JSON form, with a query-only reference to the next one.

    Query-only, because it is right behind every proxy and prefix.
    """
    next_: str | None = None
    if page.has_more:
        kept = [
            (name, value)
            for name, value in request.query_params.multi_items()
            if name not in ("offset", "limit")
        ]
        following = [("offset", page.offset + page.limit), ("limit", page.limit)]
        next_ = "?" + urlencode([*kept, *following])
    return PageBody[Shown](
        items=[shown(item) for item in page.items],
        offset=page.offset,
        limit=page.limit,
        next=next_,
    )
