"""What the API tests share: one application on real stores, a client per caller, and a problem's
canonical shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from matih_ray.api.app import create_app
from matih_ray.api.limits import Limits
from matih_ray.api.tokens import open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.control.ports import Ports
from matih_ray.control.stream_jobs import Scripts
from matih_ray.model.ids import TenantId
from matih_ray.registry import Registry
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.fakes import InlineLauncher, RecordingLauncher, memory_registry

TENANT = TenantId("acme")
PASSWORD = "hunter2-never-shown"
TABLES = {"public.orders": 1000, "public.items": 50, "sales.empty": 0}


class Client:
    """Requests to an ASGI application, from any number of threads, without a socket."""

    def __init__(self, portal: BlockingPortal, app, headers: dict[str, str]) -> None:
        self._portal = portal
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api", headers=headers
        )

    def request(self, method: str, url: str, **kwargs) -> httpx.Response:
        return self._portal.call(partial(self._client.request, method, url, **kwargs))

    def get(self, url: str, **kwargs) -> httpx.Response:
        return self.request("GET", url, **kwargs)


@dataclass
class Lab:
    """One application, its ports, and a client with an engineer's token for tenant acme."""

    ports: Ports
    launcher: RecordingLauncher
    app: FastAPI
    client: Client

    def as_(self, *roles: Role, tenant: str = TENANT, subject: str = "ann") -> dict[str, str]:
        """Headers of a caller."""
        return bearer(self.ports.settings, *roles, tenant=tenant, subject=subject)

    def path(self, rest: str = "", tenant: str = TENANT) -> str:
        return f"/api/v1/tenants/{tenant}{rest}"

    def call(self, method: str, rest: str, **kwargs) -> httpx.Response:
        return self.client.request(method, self.path(rest), **kwargs)

    def endpoint(self, name: str = "shop", collect: bool = True, **config) -> str:
        """An endpoint with a collected catalog; returns its id."""
        body = {
            "name": name,
            "type": "MEMORY",
            "config": {"tables": TABLES, **config},
            "secrets": {"password": PASSWORD},
        }
        created = self.call("POST", "/endpoints", json=body)
        assert created.status_code == 201, created.text
        endpoint_id = created.json()["endpointId"]
        if collect:
            assert self.call("POST", f"/endpoints/{endpoint_id}/collect").status_code == 200
        return endpoint_id

    def start(self, endpoint_id: str, unit_id: str = "public.orders", **policy) -> httpx.Response:
        body = {"endpointId": endpoint_id, "unitId": unit_id, "policy": policy}
        return self.call("POST", "/runs", json=body)


def bearer(
    settings: Settings, *roles: Role, tenant: str = TENANT, subject: str = "ann"
) -> dict[str, str]:
    principal = Principal(subject, TenantId(tenant), frozenset(roles))
    token = open_tokens(settings).issue(principal, datetime.now(timezone.utc), 600)
    return {"Authorization": f"Bearer {token}"}


def open_lab(
    home: Path,
    launcher: RecordingLauncher,
    limits: Limits | None = None,
    registry: Registry | None = None,
    scripts: Callable[[Settings], Scripts] | None = None,
    **changes: str,
) -> Iterator[Lab]:
    """A lab for as long as a fixture lives; `changes` are settings."""
    settings = Settings.model_validate({"home": home, **changes})
    stores = open_stores(settings)
    ports = Ports(
        settings=settings,
        registry=registry or memory_registry(),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=launcher,
    )
    ports = launcher.attach(ports) if isinstance(launcher, InlineLauncher) else ports
    headers = bearer(settings, Role.DATA_ENGINEER)
    app = create_app(ports, limits, scripts=None if scripts is None else scripts(settings))
    with start_blocking_portal() as portal:
        yield Lab(ports, launcher, app, Client(portal, app, headers))
    stores.close()


PROBLEM_FIELDS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "retryable",
    "context",
    "errors",
}


def assert_problem(response: httpx.Response, status: int, code: str) -> dict:
    """The canonical error body, whoever produced it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == PROBLEM_FIELDS
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:matih:problem:{code}"
    assert body["title"]
    assert body["detail"]
    request_id = response.headers["x-request-id"]
    assert body["instance"] == f"urn:matih:request:{request_id}"
    assert isinstance(body["retryable"], bool)
    assert isinstance(body["context"], dict)
    assert all(set(item) == {"field", "message"} for item in body["errors"])
    assert not re.search(r"Traceback|File \"", response.text)
    return body
