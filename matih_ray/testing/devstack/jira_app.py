"""A Jira Cloud site of our own, as a program: the paths, paging, limits and errors of REST API v3.

    python -m matih_ray.testing.devstack.jira_app PORT

Answers have the shapes of Atlassian's OpenAPI document, which a test compares. Under `/_admin` a
test changes the site (`{"do": "edit", "with": {…}}`), orders faults and reads what was asked; that
part needs no login and is not Jira's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from matih_ray.testing.devstack.jira_calls import PATHS, Answering, JiraServerState, RefusedError
from matih_ray.testing.devstack.jira_replay import Asked

USER, TOKEN = "reader@example.com", "open sesame"
CLIENT_ID, CLIENT_SECRET = "client", "client sesame"


def _authenticated(state: JiraServerState, request: Request) -> None:
    given = request.headers.get("Authorization", "")
    basic = "Basic " + base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
    if given != basic and given.removeprefix("Bearer ") not in state.access_tokens:
        raise RefusedError(401, "Client must be authenticated to access this resource.")


async def _grant(state: JiraServerState, request: Request) -> Response:
    """POST /oauth/token: refresh tokens are replaced with each use, and refused afterwards."""
    form = dict(parse_qsl((await request.body()).decode()))
    is_refresh = form.get("grant_type") == "refresh_token"
    if is_refresh and (
        form.get("refresh_token") != state.refresh_token
        or (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET)
    ):
        return JSONResponse({"error": "invalid_grant"}, 403)
    state.grants += 1
    token = f"access-{secrets.token_hex(8)}"
    state.access_tokens.add(token)
    answer = {"access_token": token, "expires_in": state.token_lifetime_s, "token_type": "Bearer"}
    if is_refresh:
        state.refresh_token = f"refresh-{secrets.token_hex(8)}"
        answer["refresh_token"] = state.refresh_token
    return JSONResponse(answer)


def _route(state: JiraServerState, method: str, path: str, answering: Answering) -> Route:
    async def handle(request: Request) -> Response:
        asked = (method, f"{request.url.path}?{request.url.query}", await request.body())
        if state.replaying:
            state.note(asked)
            return await state.replay.answer(asked)
        await asyncio.sleep(state.latency_s)
        before_s = time.thread_time()
        response = answered(request, asked)
        if state.keeping:
            state.replay.keep(asked, response, time.thread_time() - before_s)
        return response

    def answered(request: Request, asked: Asked) -> Response:
        body = json.loads(asked[-1] or b"{}") if method == "POST" else {}
        with state.lock:
            call = state.note(asked)
            headers = {"Date": formatdate(state.site.now_ms() / 1000, usegmt=True)}
            if (fault := state.fault(call)) is not None:
                content = fault.get("body", {"errorMessages": ["a fault"], "errors": {}})
                more = fault.get("headers", {})
                return JSONResponse(content, fault["status"], headers={**headers, **more})
            try:
                _authenticated(state, request)
                answer = answering(state, request, body)
            except RefusedError as refused:
                content = {"errorMessages": refused.messages, "errors": {}}
                return JSONResponse(content, refused.status, {**headers, **refused.headers})
            return JSONResponse(answer, headers=headers)

    return Route(path, handle, methods=[method])


def app(url: str) -> Starlette:
    """The program."""
    state = JiraServerState(url)

    async def administer(request: Request) -> Response:
        order = await request.json()
        with state.lock:
            answer = state.administer(order)
        return JSONResponse(answer)

    async def grant(request: Request) -> Response:
        return await _grant(state, request)

    routes = [_route(state, *path) for path in PATHS]
    own: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/_admin", administer),
        ("/oauth/token", grant),
    ]
    routes += [Route(path, handler, methods=["POST"]) for path, handler in own]
    return Starlette(routes=routes)


def main() -> None:
    """Serve on a port of 127.0.0.1 until stopped."""
    port = int(sys.argv[1])
    uvicorn.run(
        app(f"http://127.0.0.1:{port}"),
        host="127.0.0.1",
        port=port,
        log_level="critical",
        date_header=False,
        lifespan="off",
    )


if __name__ == "__main__":
    main()
