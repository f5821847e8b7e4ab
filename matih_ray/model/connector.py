"""Connectors as people see them: their status, the outcome of tests, what discovery found.

A connector is the stored endpoint; this is what is known *about* one. It changes with every test
and is therefore kept apart from the configuration, whose version callers rely on.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.run import RunError
from matih_ray.model.value import Value


class ConnectorStatus(str, Enum):
    """Seed 001: what the last test says, unless the connector is disabled or being tested."""

    ACTIVE = "ACTIVE"  # the last test succeeded
    WARNING = "WARNING"  # it succeeded, slower than the threshold
    ERROR = "ERROR"  # it failed, or there was none yet
    INACTIVE = "INACTIVE"  # disabled by a user
    TESTING = "TESTING"  # a test is under way


class StageState(str, Enum):
    """Outcome of one stage of a connectivity test."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # an earlier stage failed, or the source has no such stage


class ConnectivityStage(Value):
    """One stage: `dns`, `tcp`, `tls`, `authentication`, `database` or `permission`."""

    name: str
    state: StageState
    latency_ms: float | None = None


class Capabilities(Value):
    """What the connector was seen to allow."""

    connect: bool = False
    list: bool = False
    read: bool = False
    incremental: bool = False
    cdc: bool = False


class ConnectorTest(Value):
    """Outcome of a connectivity test, good or bad. `remediation` says what to do about a failure.

    `latency_ms` is the time of the login, None when it failed.
    """

    connector_id: EndpointId
    success: bool
    latency_ms: float | None = None
    server_version: str | None = None
    message: str
    error_code: str | None = None
    tested_at: datetime
    stages: tuple[ConnectivityStage, ...] = ()
    capabilities: Capabilities = Capabilities()
    remediation: str | None = None


class HealthPoint(Value):
    """One test in a connector's history."""

    tested_at: datetime
    success: bool
    latency_ms: float | None = None
    error_code: str | None = None


class DiscoveryState(str, Enum):
    """Life of one discovery."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"  # by a user; the catalog is as it was before


class CatalogChanges(Value):
    """Units that differ from the discovery before, by id; each list is cut at a named limit.

    `changed` are units with other columns or another key than before.
    """

    added: tuple[UnitId, ...] = ()
    removed: tuple[UnitId, ...] = ()
    changed: tuple[UnitId, ...] = ()
    added_total: int = 0
    removed_total: int = 0
    changed_total: int = 0


class Discovery(Value):
    """The last discovery of a connector. `discovered_at` is when the catalog was last replaced."""

    state: DiscoveryState
    started_at: datetime
    discovered_at: datetime | None = None
    schemas: int | None = None
    tables: int | None = None
    skipped: int = 0
    changes: CatalogChanges | None = None
    error: RunError | None = None


class ConnectorState(Value):
    """What is known about a connector: replaced by compare-and-set, `version` 0 is a new one.

    `testing_until` is a moment and not a flag, so that a test that died cannot last for ever.
    `due_at` is when the next health check should be, `history` the last tests, newest first, and
    `alerted` whether people were told that the connector is in error.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    last_test: ConnectorTest | None = None
    testing_until: datetime | None = None
    due_at: datetime | None = None
    history: tuple[HealthPoint, ...] = ()
    alerted: bool = False
    discovery: Discovery | None = None
    version: int = 0


class ConnectorUsage(Value):
    """What the runs of a connector have read. `rows` and `bytes` are those that were committed.

    `last_used_at` is when the last of these runs was created.
    """

    connector_id: EndpointId
    since: datetime
    runs: int = 0
    completed_runs: int = 0
    failed_runs: int = 0
    rows: int = 0
    bytes: int = 0
    last_used_at: datetime | None = None


class NotificationKind(str, Enum):
    """Why somebody is notified."""

    CONNECTOR_ERROR = "CONNECTOR_ERROR"
    CONNECTOR_RECOVERED = "CONNECTOR_RECOVERED"


class Notification(Value):
    """Something that the tenant's admins should know. `message` is for people."""

    notification_id: str
    tenant_id: TenantId
    connector_id: EndpointId
    kind: NotificationKind
    message: str
    test: ConnectorTest
    created_at: datetime
