"""The agent's application: its own, so that conversations scale apart from the control API.

A session lives in one process; behind several replicas a router must send a session's requests to
the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from matih_ray import __version__
from matih_ray.agent.dialogue import Dialogue
from matih_ray.agent.sessions import EVICT_EVERY_S, SessionStore
from matih_ray.api.app import ControlApi, surround
from matih_ray.api.gateway import GatewayAuthentication
from matih_ray.api.limits import Deadlines, Limits
from matih_ray.api.middleware import API_PREFIX, Authentication
from matih_ray.api.routes import agent
from matih_ray.control.ports import Ports
from matih_ray.control.source_calls import DirectCalls, SourceCalls

AGENT_PREFIX = f"{API_PREFIX}/agents"


def create_agent_app(
    ports: Ports,
    calls: SourceCalls | None = None,
    *,
    sessions: SessionStore | None = None,
    prefix: str = AGENT_PREFIX,
) -> FastAPI:
    """The ingestion agent over these ports, as an ASGI application.

    Args:
        ports: What the use cases work with.
        calls: Where sources are tested and discovered; in this process if nothing is said.
        sessions: Where sessions are kept; in memory if nothing is said.
        prefix: Path before the routes; empty behind a router that has taken it off.

    Raises:
        ConfigurationError: The key that tokens are verified with is missing or too short.
    """
    limits = Limits()
    dialogue = Dialogue(ports, calls or DirectCalls(), Deadlines(limits), sessions)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        evicting = asyncio.create_task(_evict_now_and_then(dialogue))
        yield
        evicting.cancel()

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
    trusted = ports.settings.agent_trusts_gateway
    surround(app, ports, limits, GatewayAuthentication if trusted else Authentication)
    return app


async def _evict_now_and_then(dialogue: Dialogue) -> None:
    while True:
        await asyncio.sleep(EVICT_EVERY_S)
        dialogue.evict()
