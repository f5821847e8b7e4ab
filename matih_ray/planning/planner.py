"""The one function that turns (source, unit, checkpoint, policy) into a checked plan."""

from __future__ import annotations

from matih_ray.errors import PlanError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy, RunMode, WriteMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.base import SourceEndpoint, SupportsIncrementalPlanning


def make_plan(
    source: SourceEndpoint,
    unit: EndpointUnitDescriptor,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
) -> IngestionPlan:
    """Ask the source for a plan and check that it is one. Probes the source, starts nothing.

    Raises:
        PlanError: The source cannot do what the policy asks, or made an invalid plan.
        ValidationError: The policy's cursor contradicts the stored checkpoint.
        SourceError: Probing failed.
    """
    if policy.run_mode is RunMode.FULL:
        checkpoint = None
    elif policy.run_mode is RunMode.INCREMENTAL and checkpoint is not None:
        _same_cursor(checkpoint, policy, unit)
    if isinstance(source, SupportsIncrementalPlanning):
        plan = source.plan_incremental_slices(unit, checkpoint, policy, policy.target_slice_rows)
    elif policy.run_mode is RunMode.FULL:
        plan = _whole(unit)
    else:
        raise PlanError(
            f"{unit.unit_id} has no {policy.run_mode.value} mode; use a full run",
            unit_id=unit.unit_id,
            run_mode=policy.run_mode.value,
        )
    check_plan(plan)
    replaces = policy.effective_write_mode is WriteMode.OVERWRITE
    return plan.model_copy(update={"replaces": True}) if replaces else plan


def check_plan(plan: IngestionPlan) -> None:
    """Assert what every reader of a plan relies on.

    Raises:
        PlanError: Too many slices, gaps in the sequence, or keys that are not unique.
    """
    count = len(plan.slices)
    if count > MAX_SLICES_PER_PLAN:
        raise PlanError(
            f"a plan may have {MAX_SLICES_PER_PLAN} slices and this one has {count}; "
            "raise targetSliceRows",
            slices=count,
        )
    if [slice_.sequence for slice_ in plan.slices] != list(range(count)):
        raise PlanError(f"{plan.strategy}: slice sequences are not 0..{count - 1}")
    if len({slice_.key for slice_ in plan.slices}) != count:
        raise PlanError(f"{plan.strategy}: slice keys are not unique")


def _whole(unit: EndpointUnitDescriptor) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=(IngestionSlice(key="all", sequence=0, estimated_rows=unit.estimated_rows),),
        strategy="whole-unit",
    )


def _same_cursor(
    checkpoint: Checkpoint, policy: IngestionPolicy, unit: EndpointUnitDescriptor
) -> None:
    """A cursor value means nothing in another column's order, and a full load leaves none."""
    stored = checkpoint.cursor_column
    if stored is None and checkpoint.run_id is not None:
        raise PlanError(
            f"the last load of {unit.unit_id} was full and left no cursor, so an incremental run "
            "cannot know which rows are loaded; run a full load with cursorColumn, or reset the "
            "checkpoint",
            unit_id=unit.unit_id,
            run_id=checkpoint.run_id,
        )
    if stored is not None and policy.cursor_column not in (None, stored):
        raise ValidationError(
            f"{unit.unit_id} has a checkpoint on column {stored!r}, and the policy asks for "
            f"{policy.cursor_column!r}; reset the checkpoint to change the cursor",
            field="cursorColumn",
            stored=stored,
            requested=policy.cursor_column,
        )
