"""What stands before our own REST catalog: OAuth client credentials with a scope, and its tokens.

After RFC 6749, section 4.4, and the `oauth/tokens` of Iceberg's REST specification. Our own: no
catalog with a guard could be had as a package.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response


@dataclass(frozen=True)
class Guard:
    """Whom a catalog answers to, the properties with which it opens its own warehouse, and those
    that it hands to clients which ask for delegated access."""

    client_id: str = "matih"
    client_secret: str = field(default="a secret nobody may see", repr=False)
    scope: str = "PRINCIPAL_ROLE:loader"
    lifetime_s: int = 3600
    warehouse: str | None = None
    own: dict[str, str] = field(default_factory=dict, repr=False)
    vended: dict[str, str] = field(default_factory=dict, repr=False)


def add_guard(app: FastAPI, guard: Guard) -> None:
    """Let the catalog answer to bearers of tokens that it gives to the guard's client."""
    tokens: dict[str, float] = {}
    given: list[str] = []

    @app.middleware("http")
    async def check(request: Request, call_next: Any) -> Any:
        if request.url.path.startswith(("/tokens", "/faults", "/v1/oauth/")):
            return await call_next(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if tokens.get(token, 0) < time.monotonic():
            return _unknown()
        return await call_next(request)

    @app.post("/v1/oauth/tokens")
    async def give(request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        told = [form.get(name, [""])[0] for name in ("client_id", "client_secret", "scope")]
        if form.get("grant_type") != ["client_credentials"]:
            return _refused("unsupported_grant_type", 400)
        if told[:2] != [guard.client_id, guard.client_secret]:
            return _refused("invalid_client", 401)
        if told[2] != guard.scope:
            return _refused("invalid_scope", 400)
        token = secrets.token_hex(16)
        given.append(token)
        tokens[token] = time.monotonic() + guard.lifetime_s
        body = {"access_token": token, "token_type": "bearer", "expires_in": guard.lifetime_s}
        return Response(json.dumps(body), media_type="application/json")

    @app.get("/tokens")
    def count() -> int:
        return len(given)

    @app.delete("/tokens")
    def expire() -> None:
        tokens.clear()


def _refused(error: str, status: int) -> Response:
    body = {"error": error, "error_description": "refused by the catalog's guard"}
    return Response(json.dumps(body), status, media_type="application/json")


def _unknown() -> Response:
    told = {"message": "no token, or one that has expired", "type": "NotAuthorizedException"}
    body = json.dumps({"error": {**told, "code": 401}})
    return Response(body, 401, media_type="application/json")
