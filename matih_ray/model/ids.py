"""Identifiers. Distinct types, so that a unit id cannot be passed where a run id is meant."""

from __future__ import annotations

from typing import NewType

TenantId = NewType("TenantId", str)
EndpointId = NewType("EndpointId", str)
UnitId = NewType("UnitId", str)
SinkId = NewType("SinkId", str)
RunId = NewType("RunId", str)
