"""The ingestion agent as a Serve application: wiring only.

One replica: sessions are in its memory.
"""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from matih_ray.api.agent_app import create_agent_app
from matih_ray.execution.cluster import ensure_actors
from matih_ray.execution.source_calls import RaySourceCalls
from matih_ray.execution.worker import process_ports
from matih_ray.settings import Settings

# Conversations wait for their users, not for us; a turn holds a place for as long as its effects.
ONGOING_REQUESTS_MAX = 256


class AgentApiArgs(BaseModel):
    """What a Serve configuration file may say about this application."""

    num_cpus: float = 0.0


class AgentApi:
    """The replica; its ASGI application does everything."""


def build(args: AgentApiArgs) -> serve.Application:
    """The application for `serve deploy`; its route prefix must be `/api/v1/agents`."""
    return bind(Settings(), args)


def bind(settings: Settings, args: AgentApiArgs | None = None) -> serve.Application:
    """The application with settings as a value."""
    chosen = args or AgentApiArgs()

    def app() -> FastAPI:
        ensure_actors(settings)
        # Serve takes the route prefix off
        return create_agent_app(process_ports(settings), RaySourceCalls(settings), prefix="")

    deployment = serve.deployment(
        name="agent-api",
        num_replicas=1,
        max_ongoing_requests=ONGOING_REQUESTS_MAX,
        ray_actor_options={"num_cpus": chosen.num_cpus},
    )
    return deployment(serve.ingress(app)(AgentApi)).bind()
