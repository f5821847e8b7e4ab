"""What people chose for a unit: whether it may be loaded, and how if a request does not say."""

from __future__ import annotations

from datetime import datetime

from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import Value


class UnitConfiguration(Value):
    """A unit's configuration. `version` grows with each write.

    A unit that nobody has configured is enabled and has defaults. The configuration outlives the
    catalog: a table that comes back, comes back as it was configured.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    unit_id: UnitId
    enabled: bool = True
    sink_id: SinkId | None = None
    policy: IngestionPolicy | None = None
    updated_by: str
    updated_at: datetime
    version: int = 0
