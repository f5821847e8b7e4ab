"""What each plan (tier) allows (seed 001, "Connector Limits by Tier").

A tenant's tier is a setting and not a claim of its token: a token that was made before an upgrade
or a downgrade must not decide what may be created now.
"""

from __future__ import annotations

from matih_ray.control.ports import Ports
from matih_ray.errors import PlanLimitError
from matih_ray.model.ids import TenantId
from matih_ray.registry import BUILT_INS
from matih_ray.settings import Tier
from matih_ray.state.base import EndpointLimit

FREE_TYPES = ("POSTGRESQL", "MYSQL")
MAX_CONNECTORS: dict[Tier, int | None] = {"FREE": 2, "PROFESSIONAL": 10, "ENTERPRISE": None}


def connector_limit(ports: Ports, tenant_id: TenantId, type_name: str) -> EndpointLimit | None:
    """The limit that a new connector of this type counts against; None if there is none.

    Raises:
        PlanLimitError: The tenant's plan does not have this type at all.
    """
    tier = ports.settings.tier_of(tenant_id)
    if tier == "FREE" and type_name not in FREE_TYPES:
        raise PlanLimitError(
            f"the FREE plan has {' and '.join(FREE_TYPES)} connectors only, not {type_name}; "
            "upgrade the plan",
            plan=tier,
            type=type_name,
        )
    if tier == "PROFESSIONAL" and type_name not in BUILT_INS["sources"]:
        raise PlanLimitError(
            f"the PROFESSIONAL plan has the standard connector types only, and {type_name} is a "
            "plugin; upgrade the plan",
            plan=tier,
            type=type_name,
        )
    most = MAX_CONNECTORS[tier]
    if most is None:
        return None
    return EndpointLimit(
        plan=tier, types=frozenset(ports.registry.names("sources")), max_endpoints=most
    )
