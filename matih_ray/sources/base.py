"""The source contract.

A `SourceEndpoint` is the runtime object of one connector: configuration and credentials in, record
batches out. It is built where it is used (planner, slice task, connection test) and closed there;
it holds no state that another process would need.

Similar words kept apart: a *unit* is a dataset, a *slice* a re-readable piece of it, a *batch* one
Arrow record batch of a slice.

What every implementation must keep (the contract suite in `matih_ray.testing.contracts` checks it):

1. The same unit, checkpoint, policy and source contents give the same plan.
2. Slices are disjoint and together cover the unit.
3. Reading a slice twice gives the same rows while the source does not change.
4. `read` yields batches whose schema equals `read_schema` for that unit and policy, rows in no
   promised order, and never holds more than a few batches in memory.
5. Values arrive exactly or in the encoding that the unit's descriptor declares; a value that
   cannot is an `UnrepresentableValueError` naming column and remedy, never a silent change.
6. Foreign exceptions leave as `SourceError`s with one of the stable codes.
7. Abandoning the iterator of `read` frees the connection.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.provider_services import ProviderServices

# A batch of about this many bytes makes Ray's per-object cost vanish (measured: 1 GB cost 1 s of
# two cores in 22 MB batches and 8 s in thousands of small ones) and keeps a worker's memory small.
TARGET_BATCH_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class EndpointSpec:
    """All that is needed to build a source or sink endpoint: configuration plus secrets.

    `secrets` are left out of `repr`, so that a spec can appear in a traceback. `host_policy` says
    where the operator lets sources be; whoever opens connections by itself asks it for addresses.
    `services` are what calls to one provider share with those of other processes.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    name: str
    type: str
    config: Mapping[str, JsonValue]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    host_policy: HostPolicy = field(default_factory=HostPolicy)
    services: ProviderServices = field(default_factory=ProviderServices, repr=False, compare=False)


@dataclass(frozen=True)
class IngestionContext:
    """Who lists units, and how to page through them. `limit` is a number of units."""

    tenant_id: TenantId
    pattern: str | None = None
    offset: int = 0
    limit: int = 1000


@dataclass(frozen=True)
class ConnectionTest:
    """Outcome of a connectivity test that succeeded; a failure is a typed `SourceError`."""

    latency_ms: float
    server_version: str


@runtime_checkable
class SourceEndpoint(Protocol):
    """One tenant's configured connector, ready to list, describe and read.

    Built as `SomeSource(spec: EndpointSpec)`. `config_model` validates the spec's configuration and
    is published as JSON Schema; `secret_fields` names what goes to the credential store instead.
    """

    type: ClassVar[str]
    config_model: ClassVar[builtins.type[Value]]
    secret_fields: ClassVar[tuple[str, ...]]

    def test(self) -> ConnectionTest:
        """Connect and authenticate.

        Raises:
            SourceError: With one of the seven stable connectivity codes.
        """

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """Units in a stable order, with estimates from statistics, never by scanning data."""

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One unit with its columns.

        Raises:
            UnknownUnitError: The source has no such unit, or it is not visible to the credentials.
        """

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch that `read` yields for this unit and policy."""

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about `TARGET_BATCH_BYTES`; an empty slice may yield none.

        Raises:
            SourceChangedError: Table or column is gone, or a type changed since planning.
            SourceError: Any other failure of the source, mapped to a stable code.
        """

    def close(self) -> None:
        """Release connections. Safe to call twice."""


@runtime_checkable
class SupportsIncrementalPlanning(Protocol):
    """A source that can cut a unit into slices; without it a unit is read as one slice."""

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Probe the source and return a plan; `target_slice_size` is in rows.

        Raises:
            PlanError: The policy does not fit the unit (no such cursor column, …).
            SourceError: Probing failed.
        """


@runtime_checkable
class SupportsSnapshot(Protocol):
    """A source whose plan is only valid inside one database snapshot (`plan.resumable` is False).

    The planner keeps the context open while slices are read, and readers find what they need to
    join the snapshot in the slice's parameters.
    """

    def hold_snapshot(self, plan: IngestionPlan) -> AbstractSnapshot:
        """Open what the plan's slices need and return it; closing it ends their validity."""


@runtime_checkable
class SupportsChangeLog(Protocol):
    """A source that keeps the changes of a unit for those who read them (run mode `cdc`).

    `reader` is a name made of letters and digits. What a reader has not confirmed is kept for it,
    at the source's expense, until it is dropped.
    """

    def open_log(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        reader: str,
    ) -> Checkpoint:
        """See that changes are kept from now on; returns what a plan is to be made from: the
        checkpoint, or without one where the log begins. Idempotent.

        Raises:
            ReplicationNotReadyError: The source is not set up for it; says what to do.
            SourceError: It refuses.
        """

    def confirm_log(self, checkpoint: Checkpoint) -> None:
        """What is before a durable checkpoint will not be asked for again. Idempotent.

        Raises:
            SourceError: The source cannot be told; the next time will do.
        """

    def drop_log(self, unit_id: UnitId, reader: str) -> None:
        """Keep nothing for a reader any more. Idempotent.

        Raises:
            SourceError: The source cannot be told.
        """


@dataclass(frozen=True)
class FilterOption:
    """One choice: the value that goes into a filter, and its name for people."""

    value: str
    label: str


@runtime_checkable
class SupportsFilter(Protocol):
    """A source that takes `policy.filter`; all others refuse one.

    `filter_model` validates it. `filter_options` are the choices for its fields, by their JSON
    names and ordered by label, as the source has them now.
    """

    filter_model: ClassVar[builtins.type[Value]]

    def filter_options(self) -> Mapping[str, tuple[FilterOption, ...]]:
        """Raises `SourceError` if the source cannot be read."""


class AbstractSnapshot(Protocol):
    """A held snapshot. `bind` completes a slice's parameters with the snapshot's identity."""

    def bind(self, slice_: IngestionSlice) -> IngestionSlice: ...

    def close(self) -> None: ...
