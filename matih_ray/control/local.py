"""The outside world of a command that works on a runtime's stores by itself, without a cluster."""

from __future__ import annotations

from matih_ray.control.ports import Ports
from matih_ray.errors import ConfigurationError
from matih_ray.model.ids import RunId, TenantId
from matih_ray.registry import load_registry
from matih_ray.settings import Settings
from matih_ray.state.factory import process_stores


class NoLauncher:
    """Starts nothing: there is no cluster."""

    def launch(self, tenant_id: TenantId, run_id: RunId) -> None:
        """Raise `ConfigurationError`."""
        raise ConfigurationError(
            f"run {run_id} of {tenant_id} cannot be started here; ask the control API"
        )


def local_ports(settings: Settings) -> Ports:
    """Ports on the settings' stores.

    Raises:
        ConfigurationError: A store cannot be opened with these settings.
    """
    stores = process_stores(settings)
    return Ports(
        settings=settings,
        registry=load_registry(),
        metadata=stores.metadata,
        kv=stores.kv,
        credentials=stores.credentials,
        launcher=NoLauncher(),
    )
