"""The control API as a Serve application: wiring only."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

from matih_ray.api.app import create_app
from matih_ray.execution.cluster import ensure_actors
from matih_ray.execution.source_calls import RaySourceCalls
from matih_ray.execution.worker import process_ports, settle
from matih_ray.settings import Settings
from matih_ray.streaming.runtime import ensure_stream_supervisor, start_query
from matih_ray.streaming.submission import TenantScripts

# Requests a replica works on at a time; long polls are cheap but hold a place.
ONGOING_REQUESTS_MAX = 256


class ControlApiArgs(BaseModel):
    """What a Serve configuration file may say about this application."""

    replicas: int = 1
    num_cpus: float = 0.0


class ControlApi:
    """The replica; its ASGI application does everything."""


def build(args: ControlApiArgs) -> serve.Application:
    """The application for `serve deploy`; settings come from the replicas' environment."""
    return bind(Settings(), args)


def bind(settings: Settings, args: ControlApiArgs | None = None) -> serve.Application:
    """The application with settings as a value."""
    chosen = args or ControlApiArgs()

    def app() -> FastAPI:
        ensure_actors(settings)
        ensure_stream_supervisor(settings)
        api = create_app(
            process_ports(settings),
            calls=RaySourceCalls(settings),
            scripts=TenantScripts(settings, start_query),
        )
        settle()
        return api

    deployment = serve.deployment(
        name="control-api",
        num_replicas=chosen.replicas,
        max_ongoing_requests=ONGOING_REQUESTS_MAX,
        ray_actor_options={"num_cpus": chosen.num_cpus},
    )
    return deployment(serve.ingress(app)(ControlApi)).bind()
