"""What a slice of a drive is, and the cursor over all drives. Pure."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import Value
from matih_ray.sources.slices import parsed


class DrivesSlice(Value):
    """All drives."""

    kind: Literal["drives"] = "drives"
    seen_ms: int


class FeedSlice(Value):
    """Pages of a drive's delta.

    `superseded` are items to leave out of the page of that number, because they come again later
    in the feed. `paths` are those of folders that hold items of these pages, by the folder's id.
    """

    kind: Literal["feed"] = "feed"
    drive: str
    seen_ms: int
    links: tuple[str, ...]
    superseded: dict[str, tuple[str, ...]] = {}
    paths: dict[str, str] = {}


class SubtreeSlice(Value):
    """All that is below folders, by id and path, that were renamed or moved: their items changed
    their paths and nothing else, and no delta tells of them."""

    kind: Literal["subtree"] = "subtree"
    drive: str
    seen_ms: int
    folders: dict[str, str]


class MissingSlice(Value):
    """Items that a full enumeration did not show, or whose folder was deleted: each is asked for,
    and is a deletion if it is not there."""

    kind: Literal["missing"] = "missing"
    drive: str
    seen_ms: int
    items: tuple[str, ...]


class UnreadableSlice(Value):
    """A drive, or somebody's drives, that cannot be read: there to be reported."""

    kind: Literal["unreadable"] = "unreadable"
    drive: str
    reason: str


AnySlice = DrivesSlice | FeedSlice | SubtreeSlice | MissingSlice | UnreadableSlice
SliceParams = Annotated[AnySlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[AnySlice] = TypeAdapter(SliceParams)


class DrivePlace(Value):
    """How far a drive is read, as a link of its delta, and the stored tree of its items there."""

    link: str
    tree: str | None = None


class DriveCursor(Value):
    """The place of each drive."""

    drives: dict[str, DrivePlace] = {}

    @classmethod
    def of(cls, unit_id: str, checkpoint: Checkpoint | None) -> DriveCursor:
        """The cursor of a checkpoint, an empty one without.

        Raises:
            PlanError: The checkpoint is another source's.
        """
        if checkpoint is None or checkpoint.cursor is None:
            return cls()
        if not isinstance(checkpoint.cursor, dict):
            raise PlanError(
                f"the checkpoint of {unit_id} is not one of drives; reset it", unit_id=unit_id
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
    place: DrivePlace | None = None,
) -> IngestionSlice:
    """A slice whose key says what it reads, and nothing else; `place` is its drive's after it."""
    digest = hashlib.sha256(params.to_json().encode()).hexdigest()[:16]
    drive = getattr(params, "drive", None)
    return IngestionSlice(
        key=f"{params.kind}-{digest}",
        sequence=sequence,
        params=params.to_dict(),
        estimated_rows=rows,
        # a tree of None takes the earlier one away
        cursor_patch={} if place is None else {"drives": {drive: place.to_dict()}},
        part=drive,
    )
