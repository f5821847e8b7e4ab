"""What a worker process has: ports opened once per process, and staging providers by name."""

from __future__ import annotations

import gc
import sys
from functools import cache, lru_cache
from importlib.abc import MetaPathFinder
from typing import cast

import pyarrow as pa

from matih_ray.control.ports import Ports
from matih_ray.execution.launcher import RayLauncher
from matih_ray.execution.provider_actor import cluster_services
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.staging.base import StagingProvider
from matih_ray.state.factory import process_stores
from matih_ray.telemetry import configure_logging

# Objects that a process may make between two collections; Python's own number is 700.
YOUNG_OBJECTS = 20_000


@lru_cache(maxsize=4)
def process_ports(settings: Settings) -> Ports:
    """The ports of this process; the first call opens the stores and configures logging."""
    leave_pandas()
    configure_logging(settings)
    stores = process_stores(settings)
    return Ports(
        settings=settings,
        registry=load_registry(),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=RayLauncher(settings),
        provider_services=cluster_services,
    )


class _NoPandas(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


@cache
def leave_pandas() -> None:
    """Let pyarrow find no pandas when it first looks for it, which is when it first gets a list: to
    load it takes 50 MB and a quarter of a second of each process. Who calls for pandas gets it."""
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)


@cache
def settle() -> None:
    """Leave what this process has loaded by now out of garbage collections, once: it stays.

    Looking at all of it again holds up requests for some 50 ms, and takes an eighth of the time of
    sources that make many objects. Those that are made later are looked at more rarely: a page of
    an API is some ten thousand of them, none in a circle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


@lru_cache(maxsize=8)
def staging_provider(settings: Settings, provider_id: str) -> StagingProvider:
    """The staging provider of that name.

    Raises:
        UnknownPluginError: No provider has this name.
    """
    provider_class = load_registry().resolve("staging", provider_id)
    if provider_id == "filesystem":
        directory = settings.staging_dir or settings.home / "staging"
        return cast("StagingProvider", provider_class(directory.absolute().as_uri()))
    return cast("StagingProvider", provider_class())
