"""What a slice of a table is: one segment of a parallel scan, and which of its items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.value import Value


class CursorBounds(Value):
    """Items with `lower < attribute <= upper`, both the attribute's own text; None is open.

    `others` adds the items whose attribute is missing or of another type; without an `upper` they
    are the only ones.
    """

    attribute: str
    type: Literal["N", "S"]
    lower: str | None = None
    upper: str | None = None
    others: bool = False


class SegmentSlice(Value):
    """Segment `segment` of `total_segments`; `cursor` None means all of its items."""

    segment: Annotated[int, Field(ge=0)]
    total_segments: Annotated[int, Field(ge=1, le=MAX_SLICES_PER_PLAN)]
    cursor: CursorBounds | None = None


def parse(slice_: IngestionSlice) -> SegmentSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return SegmentSlice.from_json(dict(slice_.params))


def segments(rows: int, target_rows: int) -> int:
    """How many segments of about `target_rows` a table has."""
    return min(max(1, -(-rows // target_rows)), MAX_SLICES_PER_PLAN)


def make_slices(
    rows: int,
    target_rows: int,
    cursor: CursorBounds | None = None,
    dedupe_on: tuple[str, ...] = (),
) -> list[IngestionSlice]:
    """The segments of one scan. `rows` is an estimate of the table's items."""
    total = segments(rows, target_rows)
    return [
        IngestionSlice(
            key=f"segment-{segment:05d}-of-{total}",
            sequence=segment,
            params=SegmentSlice(segment=segment, total_segments=total, cursor=cursor).to_dict(),
            estimated_rows=round(rows / total),
            # a cursor is passed only when all segments are read
            cursor_after=cursor.upper if cursor is not None and segment == total - 1 else None,
            dedupe_on=dedupe_on,
        )
        for segment in range(total)
    ]


def scan_request(
    unit_id: str, params: SegmentSlice, names: tuple[str, ...] | None
) -> dict[str, Any]:
    """The slice as a request to `Scan`.

    Args:
        unit_id: The table.
        params: The slice.
        names: Attributes to deliver; None for all.
    """
    request: dict[str, Any] = {
        "TableName": unit_id,
        "Segment": params.segment,
        "TotalSegments": params.total_segments,
    }
    aliases: dict[str, str] = {}
    if names is not None:
        aliases = {f"#c{number}": name for number, name in enumerate(names)}
        request["ProjectionExpression"] = ", ".join(aliases)
    if params.cursor is not None:
        expression, values = _filter(params.cursor)
        request["FilterExpression"] = expression
        request["ExpressionAttributeValues"] = values
        aliases["#cursor"] = params.cursor.attribute
    if aliases:
        request["ExpressionAttributeNames"] = aliases
    return request


def _filter(cursor: CursorBounds) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {":type": {"S": cursor.type}}
    conditions = []
    if cursor.upper is not None:
        values[":upper"] = {cursor.type: cursor.upper}
        within = ["attribute_type(#cursor, :type)", "#cursor <= :upper"]
        if cursor.lower is not None:
            values[":lower"] = {cursor.type: cursor.lower}
            within.append("#cursor > :lower")
        conditions.append(f"({' AND '.join(within)})")
    if cursor.others:
        conditions.append("attribute_not_exists(#cursor)")
        conditions.append("NOT attribute_type(#cursor, :type)")
    return " OR ".join(conditions), values
