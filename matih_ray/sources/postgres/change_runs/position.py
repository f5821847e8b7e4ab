"""Where a run by the log begins, and what its slices are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.errors import PlanError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.postgres.change_runs.rows import VERSION
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.slices import NullSlice, PageSlice, RangeSlice
from matih_ray.sources.slices import parsed

Part = Annotated[RangeSlice | NullSlice | PageSlice, Field(discriminator="kind")]


class LogPosition(Value):
    """A cursor: what committed before `lsn` is loaded, and beyond it the transactions of `view`.

    Unless `loaded`, the rows that are there have to be read first. `system` and `table` are the
    numbers of the database cluster and the table that this is a position of.
    """

    system: str
    table: int
    slot: str
    lsn: str
    loaded: bool = False
    view: SnapshotView | None = None


class RowsSlice(Value):
    """Rows as they were in `snapshot`, which is taken when the log is at `lsn` or later."""

    kind: Literal["rows"] = "rows"
    part: Part
    lsn: str
    snapshot: str | None = None


class LogSlice(Value):
    """What committed from `lower` on and before `upper`, without the transactions of `view`."""

    kind: Literal["log"] = "log"
    system: str
    table: int
    slot: str
    lower: str
    upper: str
    view: SnapshotView | None = None


# Those of a table's own are of plans that are only looked at, by previews.
ChangeSlice = RowsSlice | LogSlice | RangeSlice | NullSlice | PageSlice
_BY_KIND = Annotated[ChangeSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[ChangeSlice] = TypeAdapter(_BY_KIND)


def parse_change(slice_: IngestionSlice) -> ChangeSlice:
    """The parameters of a slice of a run by the log.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def position_of(checkpoint: Checkpoint | None, unit: EndpointUnitDescriptor) -> LogPosition | None:
    """The position in a checkpoint; None before the first run by the log has committed rows.

    Raises:
        PlanError: The checkpoint is of loads of another kind.
    """
    if checkpoint is None:
        return None
    if checkpoint.cursor_column == VERSION and checkpoint.cursor is None:
        return None
    try:
        if checkpoint.cursor_column == VERSION and isinstance(checkpoint.cursor, dict):
            return LogPosition.from_json(checkpoint.cursor)
    except ValidationError:
        pass  # not ours, as the message says
    raise PlanError(
        f"the last load of {unit.unit_id} was none by its log, so nobody knows which changes the "
        "table has; reset the checkpoint, and the next run begins with all rows",
        unit_id=unit.unit_id,
    )
