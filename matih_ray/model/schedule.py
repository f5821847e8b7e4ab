"""Schedules: when a unit is loaded again and again."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from pydantic import Field

from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.value import Value

# What is wanted more often is a stream and not a schedule: a run has a fixed cost of a second.
MIN_INTERVAL_S = 10
MAX_INTERVAL_S = 366 * 86_400
MAX_JITTER_S = 3600


class Overlap(str, Enum):
    """What happens when it is time and the last run is still active."""

    SKIP = "skip"  # this time is left out
    WAIT = "wait"  # the run starts when the active one has ended


class FiringOutcome(str, Enum):
    """How one firing of a schedule ended."""

    STARTED = "STARTED"
    SKIPPED = "SKIPPED"  # a run was active
    FAILED = "FAILED"  # no run could be started; the message says why


class Firing(Value):
    """The last time that a schedule was due. `due_at` is when it should have fired."""

    due_at: datetime
    fired_at: datetime
    outcome: FiringOutcome
    run_id: RunId | None = None
    message: str | None = None


class Timing(Value):
    """When: either a cron expression of five fields in a time zone, or an interval in seconds.

    `jitter_s` moves a schedule by a part of itself that is always the same, so that many schedules
    of the same time do not start together. Times that passed while nothing was running are made up
    for once, not one by one.
    """

    cron: Annotated[str | None, Field(examples=["0 2 * * *"])] = None
    every_s: Annotated[int | None, Field(ge=MIN_INTERVAL_S, le=MAX_INTERVAL_S)] = None
    time_zone: Annotated[str, Field(description="IANA name, for cron", max_length=64)] = "UTC"
    jitter_s: Annotated[int, Field(ge=0, le=MAX_JITTER_S)] = 0
    overlap: Overlap = Overlap.SKIP


class Schedule(Value):
    """A stream's schedule. `due_at` is None while it is disabled; `version` grows with each write.

    Runs are started in the name of `created_by`, with a data engineer's rights in the tenant.
    """

    schedule_id: str
    tenant_id: TenantId
    endpoint_id: EndpointId
    unit_id: UnitId
    sink_id: SinkId
    timing: Timing
    policy: IngestionPolicy
    enabled: bool = True
    created_by: str
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None = None
    last: Firing | None = None
    version: int = 0
