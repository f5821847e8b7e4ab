"""Calls that wait for a source: where they are made is the caller's choice.

On a cluster they are tasks, so that a server that hangs costs a worker process and never a replica
of the API. Without one they are made by the calling process.
"""

from __future__ import annotations

from typing import Protocol

from matih_ray.control.connectivity import run_test
from matih_ray.control.discovery import run_discovery
from matih_ray.control.ports import Ports
from matih_ray.model.connector import ConnectorTest
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.state.base import EndpointRecord


class SourceCalls(Protocol):
    """Tests and discoveries."""

    def test(self, ports: Ports, record: EndpointRecord) -> ConnectorTest:
        """Test a connector, stored or not; a failure is an outcome and not an error."""

    def start_discovery(self, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        """Carry out a discovery that was noted as running; may return before it is done."""


class DirectCalls:
    """Makes every call at once, in this process."""

    def test(self, ports: Ports, record: EndpointRecord) -> ConnectorTest:
        """See `SourceCalls`."""
        return run_test(ports, record)

    def start_discovery(self, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        """See `SourceCalls`."""
        run_discovery(ports, tenant_id, endpoint_id)
