"""What a GraphQL operation works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from matih_ray.control.authorization import Principal
from matih_ray.control.ports import Ports
from matih_ray.control.streams import unit_states
from matih_ray.model.ids import EndpointId, SinkId, TenantId, UnitId
from matih_ray.state.base import UnitStateRecord


@dataclass
class OperationContext:
    """Who asks, for which tenant; and what the operation has loaded already."""

    principal: Principal
    tenant_id: TenantId
    ports: Ports
    request_id: str
    _states: dict[EndpointId, dict[tuple[UnitId, SinkId], UnitStateRecord]] = field(
        default_factory=dict
    )

    def unit_state(
        self, endpoint_id: EndpointId, unit_id: UnitId, sink_id: SinkId
    ) -> UnitStateRecord | None:
        """The state of a stream; those of an endpoint are read together, once."""
        if endpoint_id not in self._states:
            self._states[endpoint_id] = {
                (state.stream.unit_id, state.stream.sink_id): state
                for state in unit_states(self.ports, self.tenant_id, endpoint_id)
            }
        return self._states[endpoint_id].get((unit_id, sink_id))
