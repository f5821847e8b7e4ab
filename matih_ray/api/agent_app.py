"""The agent's application: its own, so that conversations scale apart from the control API.

Sessions are in this process, or in Redis, where any replica can go on with any of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import FastAPI

from matih_ray import __version__
from matih_ray.agent.dialogue import Dialogue
from matih_ray.agent.model import open_model
from matih_ray.agent.sessions import EVICT_EVERY_S, MemorySessions, SessionStore
from matih_ray.agent.sessions_redis import RedisSessions
from matih_ray.agent.vault import MemoryVault, StoredVault, Vault
from matih_ray.api.app import ControlApi, surround
from matih_ray.api.gateway import GatewayAuthentication
from matih_ray.api.limits import Deadlines, Limits
from matih_ray.api.middleware import API_PREFIX, Authentication
from matih_ray.api.routes import agent
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import DirectCalls, SourceCalls
from matih_ray.errors import MatihError

log = structlog.get_logger(__name__)

AGENT_PREFIX = f"{API_PREFIX}/agents"


def create_agent_app(
    ports: Ports,
    calls: SourceCalls | None = None,
    *,
    prefix: str = AGENT_PREFIX,
) -> FastAPI:
    """The ingestion agent over these ports, as an ASGI application.

    Args:
        ports: What the use cases work with.
        calls: Where sources are tested and discovered; in this process if nothing is said.
        prefix: Path before the routes; empty behind a router that has taken it off.

    Raises:
        ConfigurationError: The key that tokens are verified with is missing or too short, or a
            setting names no store or no model.
    """
    limits = Limits()
    settings = ports.settings
    sessions, vault = _open_stores(ports)
    dialogue = Dialogue(
        ports, calls or DirectCalls(), Deadlines(limits), sessions, vault, open_model(settings)
    )
    dialogue.load_templates()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        evicting = asyncio.create_task(_evict_now_and_then(dialogue))
        yield
        evicting.cancel()
        await dialogue.stop()

    app = ControlApi(
        title="MATIH Ray ingestion agent",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.dialogue = dialogue
    app.include_router(agent.router, prefix=prefix)
    trusted = settings.agent_trusts_gateway
    surround(app, ports, limits, GatewayAuthentication if trusted else Authentication)
    return app


def _open_stores(ports: Ports) -> tuple[SessionStore, Vault]:
    """Sessions and their secrets; both outlive this process, or neither does."""
    settings = ports.settings
    if settings.agent_sessions_url is None:
        return MemorySessions(settings.agent_sessions_max), MemoryVault()
    sessions = RedisSessions(settings.agent_sessions_url, settings.agent_sessions_max)
    return sessions, StoredVault(ports.credentials)


async def _evict_now_and_then(dialogue: Dialogue) -> None:
    while True:
        await asyncio.sleep(EVICT_EVERY_S)
        try:
            await dialogue.evict()
        except MatihError as error:  # the store may be back next time
            log.warning("eviction_failed", code=error.code, message=error.message)
