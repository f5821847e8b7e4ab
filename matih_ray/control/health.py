"""Whether this process can do its work, and which plugins it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.connector_types import connector_type
from matih_ray.control.ports import Ports
from matih_ray.errors import MissingExtraError, ValidationError
from matih_ray.model.ids import TenantId
from matih_ray.model.value import JsonValue
from matih_ray.registry import Kind

# A tenant that cannot exist: tokens name theirs in full and this one is reserved.
_NOBODY = TenantId("-")


@dataclass(frozen=True)
class PluginDescription:
    """One plugin. `config_schema` is JSON Schema; None where tenants configure nothing."""

    kind: Kind
    name: str
    available: bool
    needs: str | None = None
    vendor: str | None = None
    config_schema: dict[str, JsonValue] | None = None
    secret_fields: tuple[str, ...] = ()


def check_stores(ports: Ports) -> None:
    """Do nothing if the stores answer.

    Raises:
        StateError: One of them does not.
    """
    ports.metadata.list_endpoints(_NOBODY, limit=1)
    ports.kv.get(_NOBODY, "ready")


def list_plugins(
    principal: Principal, ports: Ports, kinds: Sequence[Kind]
) -> list[PluginDescription]:
    """All plugins of these kinds, sorted; a missing driver is said, not raised."""
    authorize(principal, Action.READ, principal.tenant_id)
    return [_described(ports, kind, name) for kind in kinds for name in ports.registry.names(kind)]


def _described(ports: Ports, kind: Kind, name: str) -> PluginDescription:
    if kind not in ("sources", "sinks"):
        return PluginDescription(kind, name, available=True)
    try:
        type_ = connector_type(ports, name)
    except MissingExtraError as error:
        return PluginDescription(kind, name, available=False, needs=error.message)
    except ValidationError:
        return PluginDescription(kind, name, available=True)
    return PluginDescription(
        kind=kind,
        name=name,
        available=True,
        vendor=type_.vendor,
        config_schema=type_.config_model.model_json_schema(by_alias=True),
        secret_fields=type_.secret_fields,
    )
