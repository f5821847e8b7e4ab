"""What our own fakes of cloud services share: a server in a thread, a clock, faults on demand.

A fake runs in a thread of the test's process, so that a test can change what it holds between two
requests, look at what was asked, and say what comes next. Its clock stands still unless it is
moved: what a test compares then does not depend on when it ran.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import psutil
import uvicorn
from fastapi import FastAPI, Request, Response

from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
Site = TypeVar("Site", bound="FakedSite")


class FakedSite:
    """A server. `asked` are the requests so far, `next_answers` are given before any of its own,
    and `before` is called with each request before it is answered. In a `storm` of so many requests
    two of three are refused with 429. Each answer takes `latency_s`; `most_under_way` is how many
    requests have waited for theirs at the same time."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.next_answers: deque[Response] = deque()
        self.before: Callable[[Request], None] = lambda _request: None
        self.storm = 0
        self.latency_s = 0.0
        self.most_under_way = self._under_way = 0
        self.now = dt.datetime(2026, 3, 1, 9, 0, tzinfo=dt.timezone.utc)
        self.created = self.now
        self.port = free_port()
        self.host = "127.0.0.1"
        self.url = f"http://{self.host}:{self.port}"
        config = uvicorn.Config(
            self._served(),
            host=self.host,
            port=self.port,
            log_level="critical",
            lifespan="off",
            date_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="faked-site", daemon=True)

    def tick(self, **passed: float) -> dt.datetime:
        """Let time pass, a second by default; the new time."""
        self.now += dt.timedelta(**(passed or {"seconds": 1}))
        return self.now

    def paths(self) -> list[str]:
        """The paths of all requests so far."""
        return [request.url.path for request in self.asked]

    def connections(self) -> int:
        """Connections that clients in this process have open here."""
        return sum(
            1
            for connection in psutil.Process().net_connections("tcp")
            if connection.raddr
            and connection.raddr.port == self.port
            and connection.status == psutil.CONN_ESTABLISHED
        )

    def add_routes(self, app: FastAPI) -> None:
        """What the service answers."""
        raise NotImplementedError

    def refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not let in."""
        raise NotImplementedError

    def __enter__(self: Site) -> Site:
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

    async def _wait(self) -> None:
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self._under_way -= 1

    def _served(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.middleware("http")
        async def first(
            request: Request, call_next: Callable[[Request], Awaitable[Response]]
        ) -> Response:
            self.asked.append(request)
            self.before(request)
            await self._wait()
            answer = self.refusal(request)
            if answer is None and self.next_answers:
                answer = self.next_answers.popleft()
            if answer is None and self.storm > 0:
                self.storm -= 1
                answer = too_many_requests() if self.storm % 3 else None
            if answer is None:
                answer = await call_next(request)
            answer.headers["Date"] = email.utils.format_datetime(self.now, usegmt=True)
            return answer

        self.add_routes(app)
        return app


def as_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(body), status, headers, "application/json")


def too_many_requests(retry_after_s: int = 0, reason: str | None = None) -> Response:
    """A 429 as both vendors send it."""
    headers = {"Retry-After": str(retry_after_s)}
    if reason is not None:
        headers["RateLimit-Reason"] = reason
    return as_json({"error": {"code": "TooManyRequests"}}, 429, headers)


def iso(moment: dt.datetime) -> str:
    """A time as both vendors write it, with milliseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
