"""The sink contract.

The order of a commit, each step idempotent under (run, slice): 1 `write`, 2 `commit` with its
marker, 3 checkpoint compare-and-set, 4 run state, 5 release staging. A sink implements 1 and 2.

What every implementation must keep (see `matih_ray.testing.contracts`):

1. Nothing written is visible before `commit`; what is never committed never becomes visible.
2. `commit` with a marker that the target already carries changes nothing and returns
   `ALREADY_APPLIED`.
3. A marker of the same run with a lower (epoch, sequence) than the target's is a `FencedError`;
   so is one whose predecessor is not the target's marker. Two owners of a run end as one.
4. A commit that may have been applied raises `CommitUnknownError`; nothing is deleted then.
   `last_marker` afterwards tells the truth.
5. An overwrite shows readers the old rows until the commit with `published=True`, then the new.
6. Writing the same slice again (another attempt) and committing one of the receipts loads it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from matih_ray.model.cdm import CdmModel
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.finalize import Finalize
from matih_ray.model.ids import RunId
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceReport
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import DEFAULT_FILE_BYTES, MergeRule, SchemaChange, WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.tables import TableSnapshot
from matih_ray.model.value import JsonValue, Value


@dataclass(frozen=True)
class SinkTarget:
    """What a run wants to write to: identity, schema and layout.

    `path` is the target's name from the outside in (tenant, endpoint, schema, table). `merge` is
    there if, and only if, the write mode is merge. `properties` are for a table that is made.
    """

    stream: StreamKey
    path: tuple[str, ...]
    schema: pa.Schema
    write_mode: WriteMode
    primary_key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    target_file_bytes: int = DEFAULT_FILE_BYTES
    checksum: bool = False
    merge: MergeRule | None = None
    schema_change: SchemaChange = SchemaChange.FAIL
    finalize: Finalize | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


class PreparedTarget(Value):
    """A target that exists: everything writers and the committer need, as plain data.

    `payload` belongs to the sink that made it and must hold no secrets. With `gathers` readers see
    nothing of a run before its commit with `published=True`, whatever the write mode.
    """

    stream: StreamKey
    display_name: str
    write_mode: WriteMode
    payload: dict[str, JsonValue]
    gathers: bool = False

    @property
    def shows_each_commit(self) -> bool:
        """Readers see each commit at once, and not a run's commits as a whole."""
        return self.write_mode.shows_each_commit and not self.gathers


class CommitOutcome(str, Enum):
    """A commit that is certain to be in the sink."""

    APPLIED = "applied"
    ALREADY_APPLIED = "already_applied"


class SliceWriter(Protocol):
    """Writes one attempt of one slice. Not thread-safe."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch whose schema equals the target's.

        Raises:
            StorageFullError: No space left.
            SinkError: Any other failure.
        """

    def close(self) -> WriteReceipt:
        """Finish all files and return the receipt."""

    def abort(self) -> None:
        """Drop what this attempt wrote, as far as possible. Safe to call at any time."""


class SinkEndpoint(Protocol):
    """One configured sink."""

    type: ClassVar[str]

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Create or check the target. Idempotent.

        Raises:
            SchemaMismatchError: The table exists and the incoming schema does not fit it.
            SinkUnavailableError: Catalog or storage cannot be reached.
        """

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice."""

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Make receipts visible together with the marker, atomically.

        `receipts` may be empty (publishing an overwrite, or recording progress of empty slices).

        Raises:
            CommitRejectedError: Certainly not applied; may be tried again.
            CommitUnknownError: May have been applied; ask `last_marker`.
            FencedError: Another owner has moved on; stop.
        """

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The marker of the last commit of this stream, whether published or not."""

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        """Drop uncommitted receipts. Only called for receipts that certainly were not committed."""

    def close(self) -> None:
        """Release connections. Safe to call twice."""


WorkItem: TypeAlias = dict[str, JsonValue]


class Workforce(Protocol):
    """Whoever does a sink's heavy work. Items are plain data, without rows and secrets."""

    @property
    def parallelism(self) -> int:
        """How many items it works on at a time."""

    def run(self, items: Sequence[WorkItem]) -> list[WorkItem]:
        """The result of `SupportsWork.work` for each item, in order.

        An item may be worked on more than once, and all of them before or after each other.
        """


@dataclass(frozen=True)
class ProvisionedTable:
    """Where the rows of a model are, in the sink's own words (schema and table)."""

    namespace: str
    name: str


@runtime_checkable
class SupportsCdm(Protocol):
    """A sink that has tables for the canonical data model.

    `supported_cdm_models` are ids of models, or families such as `cdm.work.*`.
    """

    supported_cdm_models: ClassVar[tuple[str, ...]]

    def provision(self, model: CdmModel) -> ProvisionedTable:
        """Create the model's table or add the columns that it lacks. Idempotent.

        Raises:
            SchemaMismatchError: A column that is there has another type.
            SinkUnavailableError: The database cannot be reached.
            SinkError: It refuses, for want of a right perhaps.
        """


@runtime_checkable
class SupportsWork(Protocol):
    """A sink whose commits have work that other processes can share."""

    def hire(self, workforce: Workforce) -> None:
        """Let the workforce do the work of commits from now on, instead of this process."""

    def work(self, item: WorkItem) -> WorkItem:
        """Do one item, in any process. Repeating it leaves at most files that nobody names."""


@runtime_checkable
class SupportsFinalize(Protocol):
    """A sink that gathers a run's rows unseen and audits them before readers see them.

    `prepare` then returns a target that `gathers` if `SinkTarget.finalize` is there, and a commit
    with `published=True` raises `AuditFailedError` if the rows are not as declared; readers and
    markers are as they were then.
    """

    finalizes: ClassVar[bool]


@runtime_checkable
class SupportsRollback(Protocol):
    """A sink that can take back what a run has committed."""

    def rollback(self, prepared: PreparedTarget, run_id: RunId) -> None:
        """Show readers what they saw before the run. Idempotent. The run is fenced from then on.

        Raises:
            ConflictError: Others have committed since, or what was before is gone.
            SinkError: The table cannot be reached.
        """


@runtime_checkable
class SupportsHistory(Protocol):
    """A sink whose tables can be read as they were."""

    def tables(self) -> list[str]:
        """Dotted names of all tables of the sink's tenant, without the tenant's own part."""

    def snapshots(self, table: str) -> list[TableSnapshot]:
        """The states of a table that can still be read, newest first.

        Raises:
            SinkError: The table is not there, or the catalog cannot be reached.
        """

    def repartition(self, table: str, partition_by: tuple[str, ...]) -> None:
        """Let new files of a table be partitioned in another way.

        Raises:
            ValidationError: A transform or a column is wrong.
            SinkError: The table is not there, or the catalog cannot be reached.
        """

    def rename_column(self, table: str, column: str, name: str) -> None:
        """Give a column another name, under which it keeps its values.

        Raises:
            ValidationError: There is no such column, or the name is taken.
            SinkError: The table is not there, or the catalog cannot be reached.
        """


@runtime_checkable
class SupportsMaintenance(Protocol):
    """A sink whose tables need care besides what writers give them."""

    def tables(self) -> list[str]:
        """Dotted names of all tables of the sink's tenant, without the tenant's own part."""

    def maintain(
        self,
        table: str,
        policy: MaintenancePolicy,
        now: datetime,
        *,
        protect_since: datetime | None = None,
        dry_run: bool = False,
    ) -> MaintenanceReport:
        """Care for one table, beside whoever writes to it. What the table itself is set to
        comes before the policy. Files younger than `protect_since` belong to runs that go on.

        Raises:
            SinkError: The table is not there, or the catalog cannot be reached.
        """
