"""Plans are checked before anybody relies on them."""

from __future__ import annotations

import pytest

from matih_ray.errors import PlanError, ValidationError
from matih_ray.execution.checkpoints import checkpoint_after
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, RunId, UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN, IngestionPolicy, RunMode
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue
from matih_ray.planning.planner import check_plan, make_plan

UNIT = EndpointUnitDescriptor(
    endpoint_id=EndpointId("e"), unit_id=UnitId("public.t"), namespace="public", name="t"
)
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
RUN = RunId("r")


def plan(
    *cursors: JsonValue, cursor_column: str | None = "id", details: JsonValue = None
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=UNIT.endpoint_id,
        unit_id=UNIT.unit_id,
        slices=tuple(
            IngestionSlice(key=f"k{n}", sequence=n, cursor_after=cursor)
            for n, cursor in enumerate(cursors)
        ),
        strategy="test",
        statistics={} if details is None else {"checkpointDetails": details},
        cursor_column=cursor_column,
    )


class WholeOnly:
    """A source without the planning ability."""


def test_a_source_that_cannot_plan_is_read_whole() -> None:
    made = make_plan(WholeOnly(), UNIT, None, IngestionPolicy())  # type: ignore[arg-type]
    assert [slice_.key for slice_ in made.slices] == ["all"]


def test_a_source_that_cannot_plan_has_no_incremental_mode() -> None:
    with pytest.raises(PlanError, match="incremental"):
        make_plan(WholeOnly(), UNIT, None, INCREMENTAL)  # type: ignore[arg-type]


def test_another_cursor_column_needs_a_reset() -> None:
    stored = Checkpoint(cursor=5, cursor_column="updated_at")
    with pytest.raises(ValidationError, match="reset the checkpoint"):
        make_plan(WholeOnly(), UNIT, stored, INCREMENTAL)  # type: ignore[arg-type]


def test_an_incremental_run_cannot_follow_a_full_load_that_left_no_cursor() -> None:
    stored = checkpoint_after(plan(None, cursor_column=None), 1, None, RUN)
    with pytest.raises(PlanError, match="cursorColumn"):
        make_plan(WholeOnly(), UNIT, stored, INCREMENTAL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "broken",
    [
        {"slices": (IngestionSlice(key="a", sequence=1),)},
        {
            "slices": (
                IngestionSlice(key="a", sequence=0),
                IngestionSlice(key="a", sequence=1),
            )
        },
        {
            "slices": tuple(
                IngestionSlice(key=str(n), sequence=n) for n in range(MAX_SLICES_PER_PLAN + 1)
            )
        },
    ],
    ids=["gap", "same-key", "too-many"],
)
def test_a_broken_plan_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        check_plan(plan().model_copy(update=broken))


def test_the_cursor_follows_the_committed_prefix_only() -> None:
    made = plan(None, 10, 20)
    before = Checkpoint(cursor=5, cursor_column="id")
    cursors = [checkpoint_after(made, through, before, RUN).cursor for through in range(4)]
    assert cursors == [5, 5, 10, 20]


def test_a_plan_that_replaces_the_table_keeps_no_place_of_what_it_did_not_read() -> None:
    stored: JsonValue = {"projects": {"SHOP": {"at": 1}, "SITE": {"at": 2}}}
    before = Checkpoint(cursor=stored, cursor_column="id")
    patch: JsonValue = {"projects": {"SHOP": {"at": 3}}}
    slice_ = IngestionSlice(key="k", sequence=0, cursor_patch=patch)  # type: ignore[arg-type]
    made = plan().model_copy(update={"slices": (slice_,)})
    assert checkpoint_after(made, 1, before, RUN).cursor == {
        "projects": {"SHOP": {"at": 3}, "SITE": {"at": 2}}
    }
    replacing = made.model_copy(update={"replaces": True})
    assert checkpoint_after(replacing, 1, before, RUN).cursor == patch
    whole = make_plan(WholeOnly(), UNIT, None, IngestionPolicy())  # type: ignore[arg-type]
    assert whole.replaces, "a full run overwrites by default"


def test_details_travel_from_plan_to_checkpoint_and_stay() -> None:
    first = checkpoint_after(plan(10, details={"nullRows": 3}), 1, None, RUN)
    assert first.details == {"nullRows": 3}
    assert checkpoint_after(plan(20), 1, first, RUN).details == {"nullRows": 3}
