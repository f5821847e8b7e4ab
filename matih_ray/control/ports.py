"""What the use cases need from outside, as one value."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Protocol

from matih_ray.model.ids import RunId, TenantId
from matih_ray.registry import Registry
from matih_ray.settings import Settings
from matih_ray.sources.provider_services import ProviderServices
from matih_ray.state.base import CredentialStore, KeyValueStore, MetadataStore


class RunLauncher(Protocol):
    """Hands queued runs to whatever executes them."""

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Start working on a QUEUED run soon; returns at once. Idempotent."""


def new_id() -> str:
    """A random identifier: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """The current time with its zone."""
    return datetime.now(timezone.utc)


@lru_cache(maxsize=1000)
def process_services(tenant_id: TenantId, provider: str) -> ProviderServices:
    """Services shared by the threads of this process, for each tenant and provider."""
    del tenant_id, provider  # they are the cache's key
    return ProviderServices()


@dataclass(frozen=True)
class Ports:
    """The outside world of the use cases.

    `provider_services` are what the calls of a tenant to a provider share, on a cluster by all its
    processes.
    """

    settings: Settings
    registry: Registry
    metadata: MetadataStore
    kv: KeyValueStore
    credentials: CredentialStore
    launcher: RunLauncher
    clock: Callable[[], datetime] = utc_now
    new_id: Callable[[], str] = new_id
    provider_services: Callable[[TenantId, str], ProviderServices] = process_services
