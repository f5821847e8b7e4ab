"""The ingestion agent as a Serve application: wiring only.

Several replicas need sessions in Redis (`MATIH_AGENT_SESSIONS_URL`); else they are in the memory of
one.
"""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from matih_ray.api.agent_app import create_agent_app
from matih_ray.errors import ConfigurationError
from matih_ray.execution.cluster import ensure_actors
from matih_ray.execution.source_calls import RaySourceCalls
from matih_ray.execution.worker import process_ports
from matih_ray.settings import Settings

# Conversations wait for their users, not for us; a turn holds a place for as long as its effects.
ONGOING_REQUESTS_MAX = 256


class AgentApiArgs(BaseModel):
    """What a Serve configuration file may say about this application."""

    replicas: int = 1
    num_cpus: float = 0.0


class AgentApi:
    """The replica; its ASGI application does everything."""


def build(args: AgentApiArgs) -> serve.Application:
    """The application for `serve deploy`; its route prefix must be `/api/v1/agents`."""
    return bind(Settings(), args)


def bind(settings: Settings, args: AgentApiArgs | None = None) -> serve.Application:
    """The application with settings as a value.

    Raises:
        ConfigurationError: Several replicas without sessions in Redis.
    """
    chosen = args or AgentApiArgs()
    if chosen.replicas > 1 and settings.agent_sessions_url is None:
        raise ConfigurationError(
            "several replicas of the agent need sessions that they share; set "
            "MATIH_AGENT_SESSIONS_URL to a Redis server",
            setting="agent_sessions_url",
        )

    def app() -> FastAPI:
        ensure_actors(settings)
        # Serve takes the route prefix off
        return create_agent_app(process_ports(settings), RaySourceCalls(settings), prefix="")

    deployment = serve.deployment(
        name="agent-api",
        num_replicas=chosen.replicas,
        max_ongoing_requests=ONGOING_REQUESTS_MAX,
        ray_actor_options={"num_cpus": chosen.num_cpus},
    )
    return deployment(serve.ingress(app)(AgentApi)).bind()
