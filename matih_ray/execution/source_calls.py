"""Tests and discoveries as Ray tasks, with a deadline.

They reserve no CPU: a connection test waits for a server and must not itself wait until a slice of
some load has ended.
"""

from __future__ import annotations

import ray

from matih_ray.control.connectivity import TEST_DEADLINE, failed_test, run_test
from matih_ray.control.discovery import run_discovery
from matih_ray.control.ports import Ports
from matih_ray.errors import SourceTimeoutError
from matih_ray.execution.boundary import unwrap
from matih_ray.execution.worker import process_ports
from matih_ray.model.connector import ConnectorTest
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord


class RaySourceCalls:
    """A `SourceCalls` on a cluster. Tasks get names of credentials, never the credentials."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def test(self, ports: Ports, record: EndpointRecord) -> ConnectorTest:
        """See `SourceCalls`. A test that takes too long is killed and has failed with TIMEOUT."""
        answer = _remote_test.remote(self._settings, record)
        seconds = TEST_DEADLINE.total_seconds()
        try:
            outcome: ConnectorTest = ray.get(answer, timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(answer, force=True)
            late = SourceTimeoutError(f"the test took longer than {seconds:g} s")
            return failed_test(ports, record, late)
        except ray.exceptions.RayError as error:
            return failed_test(ports, record, unwrap(error))
        return outcome

    def start_discovery(self, ports: Ports, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        """See `SourceCalls`; returns at once."""
        del ports  # the task opens those of its own process
        _remote_discovery.remote(self._settings, tenant_id, endpoint_id)


def check_connector(settings: Settings, record: EndpointRecord) -> ConnectorTest:
    """Test a connector in a worker process."""
    return run_test(process_ports(settings), record)


def discover_connector(settings: Settings, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
    """Carry out a discovery in a worker process."""
    run_discovery(process_ports(settings), tenant_id, endpoint_id)


_remote_test = ray.remote(num_cpus=0, max_retries=0)(check_connector)
_remote_discovery = ray.remote(num_cpus=0, max_retries=1)(discover_connector)
