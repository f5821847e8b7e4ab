"""What a slice of a site is, and the cursor over its spaces. Pure. Times are microseconds since
1970, those named `…_ms` milliseconds."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.slices import parsed

# (id, version number) of what was loaded near the end of a window.
Recent = tuple[tuple[str, int], ...]


class PagesSlice(Value):
    """Pages by id, or what belongs to them. Those that are not there any more are deletions.

    `since` is the time up to which they were loaded before. `seen_ms` is set where pages are read
    because they appeared, vanished or were moved, which gives them no new version.
    """

    kind: Literal["pages"] = "pages"
    space: str
    ids: tuple[str, ...]
    since: int | None = None
    seen_ms: int = 0


class CommentsSlice(Value):
    """Comments with `lower <= time of change <= upper` but for those that were loaded already."""

    kind: Literal["comments"] = "comments"
    of: Literal["footer", "inline"]
    lower: int | None
    upper: int
    loaded: Recent = ()


class LabelsSlice(Value):
    """The pages of labels, as (id, name, prefix)."""

    kind: Literal["labels"] = "labels"
    labels: tuple[tuple[str, str, str], ...]
    spaces: tuple[str, ...]
    seen_ms: int


class SpacesSlice(Value):
    """All spaces."""

    kind: Literal["spaces"] = "spaces"
    seen_ms: int


class UnreadableSlice(Value):
    """A space that cannot be read: there to be reported."""

    kind: Literal["unreadable"] = "unreadable"
    space: str
    reason: str


AnySlice = PagesSlice | CommentsSlice | LabelsSlice | SpacesSlice | UnreadableSlice
SliceParams = Annotated[AnySlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[AnySlice] = TypeAdapter(SliceParams)


class Place(Value):
    """How far a space's pages, or one kind of comments, are loaded: up to the time `at`, with those
    that are `recent` then, and the packed ids of all pages that were there."""

    at: int | None = None
    recent: Recent = ()
    known: str | None = None


class SiteCursor(Value):
    """The place of each space by id, or of each kind of comments."""

    places: dict[str, Place] = {}

    @classmethod
    def of(cls, unit_id: str, checkpoint: Checkpoint | None) -> SiteCursor:
        """The cursor of a checkpoint, an empty one without.

        Raises:
            PlanError: The checkpoint is another source's.
        """
        if checkpoint is None or checkpoint.cursor is None:
            return cls()
        if not isinstance(checkpoint.cursor, dict):
            raise PlanError(
                f"the checkpoint of {unit_id} is not one of spaces; reset it", unit_id=unit_id
            )
        return cls.from_json(checkpoint.cursor)


def parse(slice_: IngestionSlice) -> AnySlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def make_slice(
    sequence: int,
    params: AnySlice,
    rows: int | None = None,
    part: str | None = None,
    place: Place | None = None,
) -> IngestionSlice:
    """A slice whose key says what it reads, and nothing else; `place` is its part's after it."""
    digest = hashlib.sha256(params.to_json().encode()).hexdigest()[:16]
    patch: dict[str, JsonValue] = {}
    if place is not None and part is not None:
        told = place.to_dict()
        if place.known is None:
            del told["known"]  # the earlier one stays
        patch = {"places": {part: told}}
    return IngestionSlice(
        key=f"{params.kind}-{digest}",
        sequence=sequence,
        params=params.to_dict(),
        estimated_rows=rows,
        cursor_patch=patch,
        part=part,
    )
