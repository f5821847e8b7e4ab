"""Conversations with the agent's application over real stores, without a socket."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from matih_ray.api.agent_app import create_agent_app
from matih_ray.control.authorization import Role
from matih_ray.control.ports import Ports
from matih_ray.registry import Registry
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.fakes import InlineLauncher, memory_registry
from tests.api.lab import Client, bearer

PATH = "/api/v1/agents/ingestion/sessions"


@dataclass
class AgentLab:
    """One application and the client of an engineer of tenant acme."""

    ports: Ports
    app: FastAPI
    client: Client
    portal: BlockingPortal

    def await_(self, call, *args):
        """What a coroutine function returns, on the application's event loop."""
        return self.portal.call(call, *args)

    def as_(self, *roles: Role, **who: str) -> dict[str, str]:
        return bearer(self.ports.settings, *roles, **who)

    def open(self, **kwargs) -> Chat:
        answer = self.client.request("POST", PATH, **kwargs)
        assert answer.status_code == 201, answer.text
        return Chat(self, answer.json())


@dataclass
class Chat:
    """One session; `last` is the last answer."""

    lab: AgentLab
    last: dict

    @property
    def path(self) -> str:
        return f"{PATH}/{self.last['session_id']}"

    @property
    def state(self) -> str:
        return self.last["state"]

    def say(self, text: str, **kwargs) -> str:
        answer = self.post(text, **kwargs)
        assert answer.status_code == 200, answer.text
        self.last = answer.json()
        return self.last["message"]

    def post(self, text: str, **kwargs) -> httpx.Response:
        return self.lab.client.request(
            "POST", f"{self.path}/chat", json={"message": text}, **kwargs
        )

    def show(self) -> dict:
        return self.lab.client.get(self.path).json()


def registry_of(types: Collection[str] | None) -> Registry:
    registry = memory_registry()
    if types is None:
        return registry
    sources = {name: registry.plugins["sources"][name] for name in types}
    return Registry({**registry.plugins, "sources": sources})


def open_agent_lab(
    home: Path, types: Collection[str] | None = None, **changes: object
) -> Iterator[AgentLab]:
    """An application over stores below `home`; with `types`, only these are installed."""
    settings = Settings.model_validate({"home": home, **changes})
    stores = open_stores(settings)
    launcher = InlineLauncher()
    ports = launcher.attach(
        Ports(
            settings=settings,
            registry=registry_of(types),
            metadata=stores.metadata,
            kv=stores.kv,
            credentials=stores.credentials,
            launcher=launcher,
        )
    )
    app = create_agent_app(ports)
    with start_blocking_portal() as portal:
        headers = bearer(settings, Role.DATA_ENGINEER)
        yield AgentLab(ports, app, Client(portal, app, headers), portal)
        portal.call(app.state.dialogue.stop)
    stores.close()
