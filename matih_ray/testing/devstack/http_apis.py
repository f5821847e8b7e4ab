"""A REST and GraphQL API of our own, with every style of paging and faults on demand.

It runs in a thread of the test's process, so that a test can look at what was asked and say what
comes next:

    with HttpApis(records=[{"id": 1}]) as api:
        api.next_answers.append(Response(status_code=503, headers={"Retry-After": "1"}))
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import strawberry
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send
from strawberry.fastapi import GraphQLRouter
from strawberry.scalars import JSON

from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
# The most records in a page, whatever is asked for: servers have such limits.
MAX_PAGE = 500

JsonObject = dict[str, Any]


class BrokenOff(Response):
    """An answer that ends before its announced length, and closes the connection."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 ASGI's signature
        """Send all but the second half."""
        headers = [(b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


class HttpApis:
    """The server. `asked` are the requests so far; `accepts` decides who is let in, and
    `next_answers` are given before any of its own."""

    def __init__(
        self,
        records: list[JsonObject] | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self.records = records or []
        self.asked: list[Request] = []
        self.next_answers: deque[Response] = deque()
        self.accepts: Callable[[Request], int] = lambda _request: 200
        self.granted: list[str] = []
        self.token_lifetime_s = 3600.0
        self.port = free_port()
        self.host = "127.0.0.1" if certificate is None else "localhost"
        self.url = f"{'http' if certificate is None else 'https'}://{self.host}:{self.port}"
        config = uvicorn.Config(
            _app(self),
            host="127.0.0.1",
            port=self.port,
            log_level="critical",
            lifespan="off",
            ssl_certfile=certificate,
            ssl_keyfile=key,
            server_header=True,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="http-apis", daemon=True)

    def connections(self) -> int:
        """Connections that clients in this process have open here."""
        return sum(
            1
            for connection in psutil.Process().net_connections("tcp")
            if connection.raddr
            and connection.raddr.port == self.port
            and connection.status == psutil.CONN_ESTABLISHED
        )

    def __enter__(self) -> HttpApis:
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(STOP_TIMEOUT_S)


def _app(api: HttpApis) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def first(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        api.asked.append(request)
        if request.url.path == "/grant":
            return await call_next(request)
        if (status := api.accepts(request)) != 200:
            return Response(status_code=status)
        return api.next_answers.popleft() if api.next_answers else await call_next(request)

    @app.get("/pages/{style}")
    def pages(style: str, request: Request) -> Response:
        return _page(api, style, request)

    @app.get("/empty")
    def empty() -> Response:
        return _json({"data": []})

    @app.get("/everything")
    def everything() -> Response:
        return _json(api.records)

    @app.post("/grant")
    async def grant(request: Request) -> Response:
        form = (await request.body()).decode()
        api.granted.append(f"{request.headers.get('Authorization')} {form}")
        name = f"granted-{len(api.granted)}"
        return _json({"access_token": name, "expires_in": api.token_lifetime_s})

    app.include_router(GraphQLRouter(strawberry.Schema(_query(api))), prefix="/graphql")
    return app


def _page(api: HttpApis, style: str, request: Request) -> Response:
    query = request.query_params
    records = _asked_for(api, query.get("since"), query.get("until"), query.get("sort"))
    size = min(int(query.get("limit", 100)), MAX_PAGE)
    if style == "page":
        start = (int(query.get("page", 1)) - 1) * size
    else:
        start = int(query.get("offset", query.get("after", 0)))
    part = records[start : start + size]
    following = start + size if start + size < len(records) else None
    body: JsonObject = {"data": part, "meta": {"total": len(records)}}
    if following is None:
        return _json(part if style == "link" else body)
    url = request.url.include_query_params(offset=following)
    if style == "link":
        links = f'<{request.url}>; rel="self", <{url}>; title="a, b"; rel="last next"'
        return _json(part, {"Link": links})
    if style == "nextUrl":
        body["links"] = {"next": f"?{url.query}"}
    if style == "cursor":
        body["meta"]["next"] = str(following)
    return _json(body)


def _asked_for(
    api: HttpApis, since: str | None, until: str | None, sort: str | None
) -> list[JsonObject]:
    """`since` is included and `until` is not, as in many APIs; whole numbers and texts alike."""
    records = api.records
    if since is not None:
        records = [r for r in records if _order(r, since) >= _typed(since)]
    if until is not None:
        records = [r for r in records if _order(r, until) < _typed(until)]
    return sorted(records, key=lambda r: -r["id"]) if sort == "newest" else records


def _typed(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text


def _order(record: JsonObject, bound: str) -> Any:
    return record["id"] if isinstance(_typed(bound), int) else record["changed"]


def _json(body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), media_type="application/json", headers=headers)


@strawberry.type
class PageInfo:
    """Where a page ends."""

    has_next_page: bool
    end_cursor: str | None


@strawberry.type
class Item:
    """One record."""

    id: int
    name: str
    detail: JSON | None


@strawberry.type
class Edge:
    """A record and its place."""

    cursor: str
    node: Item


@strawberry.type
class Connection:
    """A page of records, as Relay has it."""

    edges: list[Edge]
    nodes: list[Item]
    page_info: PageInfo


def _items(records: list[JsonObject]) -> list[Item]:
    return [Item(id=r["id"], name=r["name"], detail=r.get("detail")) for r in records]


def _query(api: HttpApis) -> type:
    @strawberry.type
    class Query:
        @strawberry.field
        def items(self, first: int = 100, after: str | None = None) -> Connection:
            start = int(after or 0)
            end = start + min(first, MAX_PAGE)
            items = _items(api.records[start:end])
            edges = [Edge(cursor=str(start + i + 1), node=n) for i, n in enumerate(items)]
            info = PageInfo(has_next_page=end < len(api.records), end_cursor=str(end))
            return Connection(edges=edges, nodes=items, page_info=info)

        @strawberry.field
        def listed(self, offset: int = 0, limit: int = 100) -> list[Item]:
            return _items(api.records[offset : offset + min(limit, MAX_PAGE)])

        @strawberry.field
        def total(self) -> int:
            return len(api.records)

        @strawberry.field
        def nothing(self, offset: int = 0, limit: int = 100) -> list[Item]:  # noqa: ARG002 paged like others
            return []

        @strawberry.field
        def broken(self) -> int | None:
            raise ValueError("no such thing")

    return Query
