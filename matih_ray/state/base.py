"""Ports of the state layer. Every write is compare-and-set or idempotent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.connector import ConnectorState, ConnectorUsage, Notification
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.run import RunRecord, RunRequest, RunState, SliceRecord
from matih_ray.model.schedule import Schedule
from matih_ray.model.stream_job import StreamJob
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.unit_configuration import UnitConfiguration
from matih_ray.model.value import JsonValue, Value
from matih_ray.state.knowledge import KnowledgeStore

# Largest page of any listing; keeps one answer under about a megabyte.
MAX_PAGE_ROWS = 1000
# Notifications kept for a tenant: months of a badly kept platform.
MAX_NOTIFICATIONS = 1000


class EndpointRecord(Value):
    """A connector as stored: never its credentials, only the name they are kept under."""

    endpoint_id: EndpointId
    tenant_id: TenantId
    name: str
    type: str
    config: dict[str, JsonValue]
    credential_name: str | None = None
    enabled: bool = True
    # facts for people that the connector type does not know: default schema, region, owner
    attributes: dict[str, JsonValue] = {}
    created_at: datetime
    updated_at: datetime
    version: int = 0


class EndpointLimit(Value):
    """How many endpoints of certain types a tenant may have, and the name of the plan for it."""

    plan: str
    types: frozenset[str]
    max_endpoints: int


class UnitStateRecord(Value):
    """The last known state of a stream, for status views (`IngestionUnitState`)."""

    stream: StreamKey
    state: RunState
    last_run_id: RunId
    last_completed_run_id: RunId | None = None
    updated_at: datetime


@dataclass(frozen=True)
class Delivery:
    """A notification that is to be sent, and how often that was tried."""

    notification: Notification
    attempts: int


@dataclass(frozen=True)
class VersionedValue:
    """A JSON value and the version to present when replacing it."""

    value: JsonValue
    version: int


class KeyValueStore(Protocol):
    """Small JSON values under (tenant, key), replaced by compare-and-set only."""

    def get(self, tenant_id: TenantId, key: str) -> VersionedValue | None:
        """The value and its version, or None."""

    def compare_and_set(
        self, tenant_id: TenantId, key: str, value: JsonValue, expected_version: int
    ) -> int:
        """Store a value; `expected_version` is 0 for a key that must not exist yet.

        Returns:
            The new version.

        Raises:
            StateConflictError: The key has another version.
        """

    def delete(self, tenant_id: TenantId, key: str) -> bool:
        """Remove a key; tells whether it existed."""

    def keys(self, tenant_id: TenantId, prefix: str) -> list[str]:
        """Keys of a tenant that start with `prefix`, sorted."""

    def close(self) -> None: ...


class CredentialStore(Protocol):
    """Secrets by (tenant, name). Values never appear in `repr`, errors or logs."""

    def put(
        self,
        tenant_id: TenantId,
        name: str,
        secrets: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Store secrets under a name, in place of earlier ones.

        `labels` are for people who look at the store and are no secrets; a store without a place
        for them leaves them out.
        """

    def get(self, tenant_id: TenantId, name: str) -> dict[str, str]:
        """Raises `NotFoundError` when there is none of that name."""

    def delete(self, tenant_id: TenantId, name: str) -> bool: ...


class MetadataStore(KnowledgeStore, Protocol):
    """Endpoints, catalog, run ledger, unit states and the knowledge base."""

    # endpoints
    def put_endpoint(
        self, record: EndpointRecord, limit: EndpointLimit | None = None
    ) -> EndpointRecord:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version.

        An insert counts against the limit, however many are made at once.

        Raises:
            StateConflictError: Somebody else changed it.
            ConflictError: Another endpoint of the tenant has this name.
            PlanLimitError: The tenant has as many as its plan allows.
        """

    def get_endpoint(self, tenant_id: TenantId, endpoint_id: EndpointId) -> EndpointRecord:
        """Raises `NotFoundError`."""

    def find_endpoint(self, tenant_id: TenantId, name: str) -> EndpointRecord | None: ...

    def list_endpoints(
        self,
        tenant_id: TenantId,
        *,
        types: Collection[str] | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[EndpointRecord]:
        """A page of endpoints, of these types only if given, ordered by name."""

    def delete_endpoint(self, tenant_id: TenantId, endpoint_id: EndpointId) -> None:
        """Remove an endpoint and its catalog; its runs stay in the ledger."""

    # what is known about connectors
    def get_connector_state(
        self, tenant_id: TenantId, endpoint_id: EndpointId
    ) -> ConnectorState | None:
        """None if it was never tested."""

    def list_connector_states(
        self,
        tenant_id: TenantId,
        endpoint_ids: Sequence[EndpointId],
        *,
        with_history: bool = True,
    ) -> dict[EndpointId, ConnectorState]:
        """The states of these endpoints, as far as there are any; at most a page of them.

        Histories are most of their size; whoever does not look at them leaves them out.
        """

    def put_connector_state(self, state: ConnectorState) -> ConnectorState:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version.

        Raises:
            StateConflictError: Somebody else changed it.
            NotFoundError: The endpoint is gone.
        """

    def find_due_connectors(
        self, types: Collection[str], at: datetime, limit: int = 100
    ) -> list[EndpointRecord]:
        """Endpoints of these types, of all tenants, whose health check is due; longest due first.

        Those without a state are due. For the supervisor; a caller's listings are by tenant.
        """

    def put_notification(
        self, notification: Notification, deliver_at: datetime | None = None
    ) -> None:
        """Store it; harmless to repeat. The oldest beyond `MAX_NOTIFICATIONS` are dropped.

        With `deliver_at` it is due to be sent to the tenant's webhook then.
        """

    def find_due_deliveries(self, at: datetime, limit: int = 100) -> list[Delivery]:
        """Notifications of all tenants that are due to be sent, longest due first."""

    def note_delivery(self, delivery: Delivery, deliver_at: datetime | None) -> None:
        """Count one more attempt; `deliver_at` is that of the next, None when there is none."""

    def list_notifications(
        self, tenant_id: TenantId, *, offset: int = 0, limit: int = 100
    ) -> list[Notification]:
        """A page of notifications, newest first."""

    # schedules
    def put_schedule(self, schedule: Schedule) -> Schedule:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version.

        Raises:
            StateConflictError: Somebody else changed it.
            ConflictError: The stream has another schedule.
            NotFoundError: The endpoint is gone.
        """

    def get_schedule(self, tenant_id: TenantId, schedule_id: str) -> Schedule:
        """Raises `NotFoundError`."""

    def list_schedules(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Schedule]:
        """A page of schedules, ordered by endpoint, unit and sink."""

    def delete_schedule(self, tenant_id: TenantId, schedule_id: str) -> None:
        """Raises `NotFoundError`. Those of a deleted endpoint go with it."""

    def find_due_schedules(self, at: datetime, limit: int = 100) -> list[Schedule]:
        """Schedules of all tenants that are due, longest due first."""

    # streaming jobs
    def put_stream_job(self, job: StreamJob) -> StreamJob:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version.

        Raises:
            StateConflictError: Somebody else changed it.
        """

    def get_stream_job(self, tenant_id: TenantId, job_id: str) -> StreamJob:
        """Raises `NotFoundError`."""

    def list_stream_jobs(
        self, tenant_id: TenantId, *, offset: int = 0, limit: int = 100
    ) -> list[StreamJob]:
        """A page of jobs, newest first."""

    def find_due_stream_jobs(self, at: datetime, limit: int = 100) -> list[StreamJob]:
        """Jobs of all tenants whose `due_at` has come, longest due first."""

    # catalog
    def replace_units(
        self,
        tenant_id: TenantId,
        endpoint_id: EndpointId,
        units: Sequence[EndpointUnitDescriptor],
    ) -> None:
        """Make the endpoint's catalog exactly these units."""

    def put_unit(self, tenant_id: TenantId, unit: EndpointUnitDescriptor) -> None:
        """Insert or refresh one unit."""

    def get_unit(
        self, tenant_id: TenantId, endpoint_id: EndpointId, unit_id: UnitId
    ) -> EndpointUnitDescriptor:
        """Raises `UnknownUnitError`."""

    def list_units(
        self,
        tenant_id: TenantId,
        endpoint_id: EndpointId,
        *,
        enabled_only: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[EndpointUnitDescriptor]:
        """A page of units, ordered by id; with `enabled_only` those that nobody has disabled."""

    # configurations of units
    def put_unit_configuration(self, configuration: UnitConfiguration) -> UnitConfiguration:
        """Insert (version 0) or replace by compare-and-set; returns it with its new version.

        Raises:
            StateConflictError: Somebody else wrote it since it was read.
            NotFoundError: No such endpoint.
        """

    def get_unit_configurations(
        self, tenant_id: TenantId, endpoint_id: EndpointId, unit_ids: Sequence[UnitId]
    ) -> dict[UnitId, UnitConfiguration]:
        """The configurations of those units (at most `MAX_PAGE_ROWS`) that have one."""

    # runs
    def create_run(self, record: RunRecord) -> RunRecord:
        """Insert a run.

        Raises:
            RunOverlapError: The stream has an active run (checked in the same transaction).
        """

    def get_run(self, tenant_id: TenantId, run_id: RunId) -> RunRecord:
        """Raises `NotFoundError`."""

    def update_run(self, record: RunRecord) -> RunRecord:
        """Replace a run whose stored version equals `record.version`; returns the new version.

        Also keeps the stream's `UnitStateRecord` true, in the same transaction. A record without a
        plan leaves the stored plan as it is; `heartbeat_at` is never set back.

        Raises:
            StateConflictError: The run was changed since it was read.
            ConflictError: The run cannot go from its stored state to this one, or the record names
                another stream.
            RunOverlapError: The run becomes active while the stream has another active run.
        """

    def heartbeat(self, tenant_id: TenantId, run_id: RunId, epoch: int, at: datetime) -> RunRecord:
        """Record that the owner of this epoch is alive; does not change `version`.

        Returns the run without its plan, so that each heartbeat also shows what was requested.

        Raises:
            StateConflictError: The run has another epoch: the caller no longer owns it.
        """

    def request(self, tenant_id: TenantId, run_id: RunId, request: RunRequest) -> RunRecord:
        """Ask the owner of an active run to pause or cancel; returns the run without its plan.

        One atomic change of `requested` that grows `version`, so that an owner who read the run
        before it fails its next `update_run` with `StateConflictError`, reads the run again and
        finds the request. Asking twice changes nothing; a cancel is never weakened to a pause.

        Raises:
            NotFoundError: No such run.
            ConflictError: The run is not active; change its state with `update_run` instead.
        """

    def list_runs(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        unit_id: UnitId | None = None,
        states: Sequence[RunState] = (),
        offset: int = 0,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Newest first, without plans (`plan` is None) to keep pages small."""

    def usage_of(
        self, tenant_id: TenantId, endpoint_id: EndpointId, since: datetime
    ) -> ConnectorUsage:
        """What the endpoint's runs that were created since then have read."""

    def find_orphans(self, heartbeat_before: datetime, limit: int = 100) -> list[RunRecord]:
        """Runs of all tenants that are QUEUED or RUNNING without a heartbeat since then.

        Being created, queued again or taken over counts as a heartbeat. Longest silent first,
        without plans.
        """

    def find_used_sinks(self) -> list[tuple[TenantId, SinkId]]:
        """Every tenant with every sink that runs of it went to, in order."""

    # slices
    def put_slices(self, tenant_id: TenantId, run_id: RunId, slices: Sequence[SliceRecord]) -> None:
        """Insert or replace slice statistics by (run, sequence)."""

    def list_slices(
        self, tenant_id: TenantId, run_id: RunId, *, offset: int = 0, limit: int = 100
    ) -> list[SliceRecord]: ...

    # unit states
    def get_unit_state(self, stream: StreamKey) -> UnitStateRecord | None: ...

    def list_unit_states(
        self,
        tenant_id: TenantId,
        *,
        endpoint_id: EndpointId | None = None,
        sink_id: SinkId | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> list[UnitStateRecord]: ...

    def close(self) -> None: ...
