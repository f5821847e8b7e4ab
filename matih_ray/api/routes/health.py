"""Health, for probes; no token needed."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from matih_ray.api.requests import PrincipalOf, RuntimeOf
from matih_ray.api.wire import HealthBody, PluginBody
from matih_ray.control.health import check_stores, list_plugins

router = APIRouter(tags=["health"])

PluginKind = Literal["sources", "sinks", "staging"]
PLUGIN_KINDS: tuple[PluginKind, ...] = ("sources", "sinks", "staging")


@router.get("/health", summary="Is the process alive?")
async def health() -> HealthBody:
    """Answers as long as the process serves requests at all; asks nothing else."""
    return HealthBody()


@router.get("/health/ready", summary="Can it do its work?")
def ready(runtime: RuntimeOf) -> HealthBody:
    """Answers 200 when the metadata and key-value stores answer, and 503 when not."""
    check_stores(runtime.ports)
    return HealthBody()


@router.get("/plugins", summary="Connector types, sinks and staging providers", tags=["plugins"])
def plugins(
    principal: PrincipalOf,
    runtime: RuntimeOf,
    kind: Annotated[PluginKind | None, Query(description="Only plugins of this kind")] = None,
) -> list[PluginBody]:
    """What this runtime can connect to, with the JSON Schema of each configuration."""
    kinds = PLUGIN_KINDS if kind is None else (kind,)
    return [
        PluginBody(
            kind=plugin.kind,
            name=plugin.name,
            available=plugin.available,
            needs=plugin.needs,
            vendor=plugin.vendor,
            config_schema=plugin.config_schema,
            secret_fields=plugin.secret_fields,
        )
        for plugin in list_plugins(principal, runtime.ports, kinds)
    ]
