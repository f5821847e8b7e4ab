"""Slices as sources keep them: parameters of a few kinds, told apart by `kind`."""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeVar

import pydantic
from pydantic import TypeAdapter

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import JsonValue, invalid

Params = TypeVar("Params")


class SliceParams(Protocol):
    """What a slice is read by; a `Value` with a kind."""

    @property
    def kind(self) -> str:
        """Which of its source's it is."""

    def to_json(self) -> str:
        """As text."""

    def to_dict(self) -> dict[str, JsonValue]:
        """As data."""


def parsed(parser: TypeAdapter[Params], slice_: IngestionSlice) -> Params:
    """The parameters of a slice.

    Raises:
        ValidationError: They are not of a kind that the parser knows.
    """
    try:
        return parser.validate_python(slice_.params)
    except pydantic.ValidationError as error:
        raise invalid(f"slice {slice_.key}", error) from None


def keyed_slice(
    sequence: int,
    params: SliceParams,
    estimated_rows: int | None = None,
    cursor_after: JsonValue = None,
    dedupe_on: tuple[str, ...] = (),
) -> IngestionSlice:
    """A slice whose key is made of its parameters, so that equal plans have equal keys."""
    digest = hashlib.sha256(params.to_json().encode()).hexdigest()[:12]
    return IngestionSlice(
        key=f"{params.kind}-{sequence:05d}-{digest}",
        sequence=sequence,
        params=params.to_dict(),
        estimated_rows=estimated_rows,
        cursor_after=cursor_after,
        dedupe_on=dedupe_on,
    )
