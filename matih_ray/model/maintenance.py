"""Table maintenance: what a caller may choose, and what was done."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from matih_ray.model.policy import DEFAULT_FILE_BYTES
from matih_ray.model.value import Value

DAY_S = 86_400.0
# Fewer files than this in a partition cost readers little, and rewriting them for every new one
# would write a row many times over.
DEFAULT_MIN_FILES = 4
# Long enough for the longest query or merge that began on a snapshot; time travel and rollback
# reach back as far.
DEFAULT_SNAPSHOT_AGE_S = 5 * DAY_S
# Much longer than any writer holds files that it has not committed yet.
DEFAULT_ORPHAN_AGE_S = 3 * DAY_S
# Snapshots of the main branch that stay however old they are.
DEFAULT_KEEP_SNAPSHOTS = 5


class MaintenanceTask(str, Enum):
    """One kind of care for a table, in the order in which they are done."""

    COMPACT = "compact"
    MANIFESTS = "manifests"
    EXPIRE = "expire"
    ORPHANS = "orphans"


class MaintenancePolicy(Value):
    """How a table is cared for.

    Files below three quarters of `target_file_bytes` are compacted once a partition has
    `min_files` of them. `sort_by` orders rows within what is compacted together (ascending, NULL
    last). `budget_bytes` is what one pass over all tables of a tenant may rewrite.
    """

    tasks: Annotated[tuple[MaintenanceTask, ...], Field(min_length=1)] = tuple(MaintenanceTask)
    target_file_bytes: Annotated[int, Field(ge=1_000_000)] = DEFAULT_FILE_BYTES
    min_files: Annotated[int, Field(ge=2, le=10_000)] = DEFAULT_MIN_FILES
    sort_by: tuple[str, ...] = ()
    keep_snapshots: Annotated[int, Field(ge=1, le=10_000)] = DEFAULT_KEEP_SNAPSHOTS
    snapshot_age_s: Annotated[float, Field(ge=0)] = DEFAULT_SNAPSHOT_AGE_S
    orphan_age_s: Annotated[float, Field(ge=0)] = DEFAULT_ORPHAN_AGE_S
    budget_bytes: Annotated[int, Field(ge=0)] | None = None


class CompactionReport(Value):
    """Small files that became large ones. `bytes_left` wait for another pass's budget;
    `groups_lost` were rewritten by somebody else meanwhile."""

    files_before: int = 0
    files_after: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    bytes_left: int = 0
    groups_lost: int = 0


class MaintenanceReport(Value):
    """What a pass did to one table, or in a dry run what it would do.

    `manifests` count those of the current snapshot; the bytes are those of deleted files.
    """

    table: str
    dry_run: bool = False
    compaction: CompactionReport = CompactionReport()
    manifests_before: int = 0
    manifests_after: int = 0
    snapshots_expired: int = 0
    expired_files: int = 0
    orphan_files: int = 0
    orphan_bytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str | None = None
