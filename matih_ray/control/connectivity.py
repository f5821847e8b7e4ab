"""Connectivity tests of connectors: the network first, then the source's own login.

What the network's stages mean, and which stage an error belongs to, is `sources.connectivity`'s.
"""

from __future__ import annotations

import time
from datetime import timedelta

from matih_ray.control.building import addresses_of, source_of
from matih_ray.control.ports import Ports
from matih_ray.errors import (
    HostNotAllowedError,
    MatihError,
    MissingExtraError,
    NotFoundError,
    SourceError,
)
from matih_ray.model.connector import Capabilities, ConnectorTest
from matih_ray.sources.base import (
    IngestionContext,
    SourceEndpoint,
    SupportsChangeLog,
    SupportsIncrementalPlanning,
)
from matih_ray.sources.connectivity import NOT_PROBED, StagedTest, with_login
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.probe import probe
from matih_ray.state.base import EndpointRecord

# What one test may take, the source's own time-outs included.
TEST_DEADLINE = timedelta(seconds=30)
_CLEAR_TEXT = (None, "disable", "prefer")


def run_test(ports: Ports, record: EndpointRecord) -> ConnectorTest:
    """Test a connector, stored or not. Whatever the source does, the answer is an outcome."""
    probed = NOT_PROBED
    addresses = addresses_of(record.config)
    if addresses:
        probed = probe(*addresses[0], HostPolicy.of(ports.settings))
    if probed.error is not None:
        return _failed(ports, record, probed, probed.error)
    tls = record.config.get("sslMode") not in _CLEAR_TEXT
    started = time.monotonic()
    try:
        source = source_of(ports, record)
        try:
            login = source.test()
            source.list_units(IngestionContext(record.tenant_id, limit=1))
        finally:
            source.close()
    except (SourceError, HostNotAllowedError, MissingExtraError, NotFoundError) as error:
        elapsed_ms = (time.monotonic() - started) * 1000
        staged = with_login(probed, latency_ms=elapsed_ms, tls=tls, error=error)
        return _failed(ports, record, staged, error)
    staged = with_login(probed, latency_ms=login.latency_ms, tls=tls)
    return ConnectorTest(
        connector_id=record.endpoint_id,
        success=True,
        latency_ms=round(login.latency_ms, 1),
        server_version=login.server_version,
        message="Connection successful",
        tested_at=ports.clock(),
        stages=staged.stages,
        capabilities=_capabilities(source),
    )


def failed_test(ports: Ports, record: EndpointRecord, error: MatihError) -> ConnectorTest:
    """The outcome of a test that could not be carried through."""
    staged = with_login(NOT_PROBED, latency_ms=0.0, tls=False, error=error)
    return _failed(ports, record, staged, error)


def _failed(
    ports: Ports, record: EndpointRecord, staged: StagedTest, error: MatihError
) -> ConnectorTest:
    return ConnectorTest(
        connector_id=record.endpoint_id,
        success=False,
        message=error.message,
        error_code=error.code,
        tested_at=ports.clock(),
        stages=staged.stages,
        remediation=staged.remediation,
    )


def _capabilities(source: SourceEndpoint) -> Capabilities:
    """What was seen (login and listing), and what the type can do with it."""
    return Capabilities(
        connect=True,
        list=True,
        read=True,
        incremental=isinstance(source, SupportsIncrementalPlanning),
        cdc=isinstance(source, SupportsChangeLog),
    )
