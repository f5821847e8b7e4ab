"""What a slice of a stream is. Cursor bounds are positions (see `positions`), as whole numbers."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.slices import parsed


class WholeSlice(Value):
    """All records."""

    kind: Literal["whole"] = "whole"


class PagesSlice(Value):
    """Page numbers or offsets `start <= x < stop`; the last slice is open."""

    kind: Literal["pages"] = "pages"
    start: int
    stop: int | None = None


class CursorSlice(Value):
    """Records with `lower < cursor <= upper`; `nulls` are those without a cursor."""

    kind: Literal["cursor"] = "cursor"
    lower: int | None
    upper: int
    nulls: Literal["load", "refuse", "ignore"]


SliceParams = Annotated[WholeSlice | PagesSlice | CursorSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[WholeSlice | PagesSlice | CursorSlice] = TypeAdapter(SliceParams)


def parse(slice_: IngestionSlice) -> WholeSlice | PagesSlice | CursorSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def make_slice(
    sequence: int,
    params: WholeSlice | PagesSlice | CursorSlice,
    estimated_rows: int | None = None,
    cursor_after: JsonValue = None,
    dedupe_on: tuple[str, ...] = (),
) -> IngestionSlice:
    """A slice whose key says what it reads, and nothing else."""
    digest = hashlib.sha256(params.to_json().encode()).hexdigest()[:16]
    return IngestionSlice(
        key=f"{params.kind}-{digest}",
        sequence=sequence,
        params=params.to_dict(),
        estimated_rows=estimated_rows,
        cursor_after=cursor_after,
        dedupe_on=dedupe_on,
    )
