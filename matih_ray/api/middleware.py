"""What surrounds every request: an id, the body's limit, authentication, and the last boundary."""

from __future__ import annotations

import base64
import re
import time
from contextlib import suppress

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matih_ray.api.problems import problem_of, problem_response
from matih_ray.api.tokens import Tokens
from matih_ray.control.authorization import Principal
from matih_ray.control.ports import new_id
from matih_ray.errors import MatihError, UnauthenticatedError
from matih_ray.telemetry import bind

API_PREFIX = "/api/v1"
# Everything else needs a token, unknown paths too: nobody learns what exists without one.
PUBLIC_PATHS = frozenset(
    {f"{API_PREFIX}/health", f"{API_PREFIX}/health/ready", f"{API_PREFIX}/openapi.json"}
)
REQUEST_ID_HEADER = "X-Request-Id"

_REQUEST_ID = re.compile(r"[\w-]{8,64}", re.ASCII)

log = structlog.get_logger(__name__)


class Boundary:
    """Outermost: gives each request an id, logs it, and turns what nobody caught into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        started_s = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with bind(request=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                if status:
                    raise  # half an answer is out; only closing the connection tells the caller
                if not isinstance(error, MatihError):
                    log.exception("request_crashed", method=scope["method"], **_who(scope))
                    error = MatihError("unexpected error")
                await problem_response(problem_of(error, request_id))(scope, receive, send_with_id)
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(time.monotonic() - started_s, 4),
                **_who(scope),
            )


class BodyLimit:
    """Refuses bodies over a size, by their declared length or while they come in."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            counted = self._refuse
        await self._app(scope, counted, send)

    async def _refuse(self) -> Message:
        raise self._too_large()

    def _too_large(self) -> HTTPException:
        # FastAPI lets only its own exception pass while it reads a body
        return HTTPException(413, f"a request has at most {self._max_bytes} bytes")


class Authentication:
    """Puts the principal of a valid bearer token into the request's state, or answers 401."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _path(scope) not in PUBLIC_PATHS:
            token = _token_of(Headers(scope=scope).get("authorization", ""))
            if not token:
                raise UnauthenticatedError("send a token: `Authorization: Bearer …`")
            principal = await self._tokens.authenticate(token)
            scope["state"]["principal"] = principal
            with bind(tenant=principal.tenant_id, subject=principal.subject):
                await self._app(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _token_of(authorization: str) -> str:
    """A bearer token, or the password of HTTP Basic: clients that were written for services without
    tokens can send a password at most."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
    return value.strip() if scheme.lower() == "bearer" else ""


def _who(scope: Scope) -> dict[str, str]:
    """The caller, as far as known: outside of the middleware that binds it to log lines."""
    principal: Principal | None = scope["state"].get("principal")
    if principal is None:
        return {}
    return {"tenant": principal.tenant_id, "subject": principal.subject}


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
