"""What the filters of a source may choose from."""

from __future__ import annotations

from collections.abc import Mapping

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.building import build_source
from matih_ray.control.ports import Ports
from matih_ray.errors import ValidationError
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.sources.base import FilterOption, SupportsFilter


def filter_options(
    principal: Principal, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId
) -> Mapping[str, tuple[FilterOption, ...]]:
    """The choices for each field of a filter, as the source has them now.

    Raises:
        NotFoundError: No such endpoint.
        ValidationError: The source takes no filter.
        SourceError: The source cannot be read.
    """
    authorize(principal, Action.READ, tenant_id)
    source = build_source(ports, tenant_id, endpoint_id)
    try:
        if not isinstance(source, SupportsFilter):
            raise ValidationError("this source takes no filter", field="endpointId")
        return source.filter_options()
    finally:
        source.close()
