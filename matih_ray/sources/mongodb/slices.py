"""What a slice of a collection is: its parameters as values, and as a query.

Bounds are kept as canonical Extended JSON, so they keep their BSON type, and are compared by the
server only.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from bson.datetime_ms import DatetimeMS
from bson.objectid import ObjectId
from pydantic import Field, TypeAdapter

from matih_ray.errors import ValidationError
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.value import Value
from matih_ray.sources.documents.columns import ALTERNATIVE
from matih_ray.sources.mongodb.types import from_extended_json
from matih_ray.sources.slices import parsed

ID = "_id"

# Types among which MongoDB's `$gt` and `$lte` compare. Others have an order too, but are rare as
# keys and cursors, or hold no two values.
Bracket = Literal["number", "string", "date", "objectId", "binData"]
BRACKETS: tuple[Bracket, ...] = ("number", "string", "objectId", "date", "binData")
_BRACKET_OF: dict[str, Bracket] = {
    "int": "number",
    "long": "number",
    "double": "number",
    "decimal": "number",
    "string": "string",
    "objectId": "objectId",
    "date": "date",
    "uuid": "binData",
    "binData": "binData",
}

# The first value of each bracket; of numbers NaN is before it.
_LEAST: dict[Bracket, Any] = {
    "number": -math.inf,
    "string": "",
    "objectId": ObjectId(bytes(12)),
    "date": DatetimeMS(-(2**63)),
    "binData": b"",
}

Query = dict[str, Any]


class WholeSlice(Value):
    """All documents."""

    kind: Literal["whole"] = "whole"


class RangeSlice(Value):
    """Documents whose `field` is of a type bracket, with `lower < field <= upper`; None is open."""

    kind: Literal["range"] = "range"
    field: str
    bracket: Bracket
    lower: str | None = None
    upper: str | None = None


class RestSlice(Value):
    """Documents that are in no range over `field` in any of these brackets: those whose field is
    missing, of another type, an array, or not a number (NaN)."""

    kind: Literal["rest"] = "rest"
    field: str
    brackets: tuple[Bracket, ...]


SliceParams = Annotated[WholeSlice | RangeSlice | RestSlice, Field(discriminator="kind")]
_PARSER: TypeAdapter[WholeSlice | RangeSlice | RestSlice] = TypeAdapter(SliceParams)


def parse(slice_: IngestionSlice) -> WholeSlice | RangeSlice | RestSlice:
    """The parameters of a slice of ours.

    Raises:
        ValidationError: They are not ours.
    """
    return parsed(_PARSER, slice_)


def bracket_of(native_type: str) -> Bracket | None:
    """The bracket of a column's values; None if they have none or several."""
    brackets = {_BRACKET_OF.get(name) for name in native_type.split(ALTERNATIVE)}
    return brackets.pop() if len(brackets) == 1 else None


def query(params: WholeSlice | RangeSlice | RestSlice) -> Query:
    """The slice as a filter for `find`."""
    if isinstance(params, WholeSlice):
        return {}
    if isinstance(params, RangeSlice):
        return range_query(params.field, params.bracket, params.lower, params.upper)
    return rest_query(params.field, params.brackets)


def range_query(
    field: str, bracket: Bracket, lower: str | None = None, upper: str | None = None
) -> Query:
    """`lower < field <= upper` within a bracket.

    Arrays are left out, because a query sees their elements, and NaN, which is in some ranges only.
    """
    condition: Query = {"$type": bracket}
    if lower is not None:
        condition["$gt"] = bound(lower)
    if upper is not None:
        condition["$lte"] = bound(upper)
    if bracket == "number":
        condition["$ne"] = math.nan
    if field != ID:  # an `_id` is never an array
        condition["$not"] = {"$type": "array"}
    return {field: condition}


def id_query(bracket: Bracket, lower: str | None) -> Query:
    """`_id`s of a bracket above `lower`, by comparison alone, which the index answers by itself;
    `$type` would make the server fetch each document. For probing: symbols count as strings."""
    condition: Query = {"$gte": _LEAST[bracket]} if lower is None else {"$gt": bound(lower)}
    if bracket == "number":
        condition["$ne"] = math.nan
    return {ID: condition}


def rest_query(field: str, brackets: tuple[Bracket, ...]) -> Query:
    """The complement of the open ranges of these brackets."""
    others: list[Query] = [{field: {"$not": {"$type": list(brackets)}}}]
    if "number" in brackets:
        others.append({field: math.nan})
    if field != ID:
        others.append({field: {"$type": "array"}})
    return others[0] if len(others) == 1 else {"$or": others}


def bound(text: str) -> Any:
    """A bound as the value it was.

    Raises:
        ValidationError: It is not Extended JSON.
    """
    try:
        return from_extended_json(text)
    except (ValueError, TypeError):
        raise ValidationError(
            "a slice's bound is not Extended JSON; plan the run again", field="params"
        ) from None
