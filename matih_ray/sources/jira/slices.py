"""What each kind of slice reads, as values. Times are microseconds since 1970."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.jira.api import SiteFacts
from matih_ray.sources.slices import parsed


class WindowSlice(Value):
    """The issues of a project with `lower < updated <= upper`, or what belongs to them; without an
    upper bound those that change while they are read as well. `zone` is the account's when that was
    planned. `facts` are asked for where they are not told."""

    kind: Literal["window"] = "window"
    project_key: str
    lower: int | None = None
    upper: int | None = None
    zone: str | None = None
    facts: SiteFacts | None = None


class ReconcileSlice(Value):
    """Issues that are no longer found, and such that were not found before but are older than
    `lower`, so that no window has them. `seen` is when this was seen; `unreadable` says why nothing
    can be concluded."""

    kind: Literal["reconcile"] = "reconcile"
    project_key: str
    lower: int
    seen: int
    gone: tuple[int, ...] = ()
    appeared: tuple[int, ...] = ()
    unreadable: str | None = None


class WholeSlice(Value):
    """All objects of a small unit, and the ids of those that were there before and are gone."""

    kind: Literal["whole"] = "whole"
    seen: int
    gone: tuple[str, ...] = ()


class WorklogSlice(Value):
    """Worklogs that changed in `since < updated <= until`, or were deleted then."""

    kind: Literal["worklogs"] = "worklogs"
    feed: Literal["updated", "deleted"]
    since: int
    until: int


JiraSlice = Annotated[
    WindowSlice | ReconcileSlice | WholeSlice | WorklogSlice, Field(discriminator="kind")
]
_PARSER: pydantic.TypeAdapter[JiraSlice] = pydantic.TypeAdapter(JiraSlice)


def parse(slice_: IngestionSlice) -> JiraSlice:
    """The parameters of a slice.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def make_slice(
    params: JiraSlice,
    estimated_rows: int | None = None,
    cursor_patch: dict[str, JsonValue] | None = None,
    dedupe_on: tuple[str, ...] = (),
) -> IngestionSlice:
    """A slice whose key says what it reads and nothing else; its place is given later."""
    digest = hashlib.sha256(params.to_json().encode()).hexdigest()[:16]
    part = getattr(params, "project_key", None)
    return IngestionSlice(
        key=f"{params.kind}-{digest}",
        sequence=0,
        params=params.to_dict(),
        estimated_rows=estimated_rows,
        cursor_patch=cursor_patch or {},
        dedupe_on=dedupe_on,
        part=part,
    )
