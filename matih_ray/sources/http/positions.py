"""A cursor's values as whole numbers: integers as they are, times as microseconds since 1970. Pure.

APIs differ in whether a bound includes its value, and in how finely they read one. So a request
asks for a little more than `lower < cursor <= upper`, and what does not belong is left out here.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from matih_ray.errors import PlanError, SourceError, UnrepresentableValueError
from matih_ray.model.value import JsonValue
from matih_ray.sources.http.config import Cursor
from matih_ray.sources.http.json_values import micros

SECOND = 1_000_000
# The granularity of each way of writing a bound, in microseconds.
_GRAIN = {"iso8601": SECOND, "epochS": SECOND, "epochMs": 1000, "date": 86_400 * SECOND}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def position_of(cursor: Cursor, value: Any) -> int | None:
    """The position of a record's value; None for null. A time without an offset is taken as UTC,
    a number as seconds, or milliseconds under the format `epochMs`.

    Raises:
        UnrepresentableValueError: It is no value of the cursor's type.
    """
    if value is None:
        return None
    try:
        if type(value) is int:
            if cursor.type == "integer":
                return value
            return value * (1000 if cursor.format == "epochMs" else SECOND)
        if type(value) is str and cursor.type == "timestamp":
            return micros(value)[0]
    except ValueError:
        pass
    raise UnrepresentableValueError(
        f"cursor {cursor.field!r} has a value that is no {cursor.type}; choose another cursor",
        column=cursor.field,
    )


def stored(cursor: Cursor, position: int) -> JsonValue:
    """A position as checkpoints keep it: an integer, or an ISO 8601 time."""
    if cursor.type == "integer":
        return position
    moment = _EPOCH + dt.timedelta(microseconds=position)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def restored(cursor: Cursor, value: JsonValue) -> int | None:
    """The position that a checkpoint, or the connector's `start`, keeps.

    Raises:
        PlanError: It is not one of this cursor.
    """
    if value is None:
        return None
    try:
        if cursor.type == "integer" and type(value) is int:
            return value
        if cursor.type == "timestamp" and isinstance(value, str):
            return micros(value)[0]
    except ValueError:
        pass
    raise PlanError(
        f"a stored value of cursor {cursor.field!r} is no {cursor.type}; reset the checkpoint, or "
        "correct `start` in the connector",
        column=cursor.field,
    )


def bound_params(cursor: Cursor, lower: int | None, upper: int) -> dict[str, str | int]:
    """Parameters that ask for at least `lower < cursor <= upper`."""
    params: dict[str, str | int] = {}
    if lower is not None:
        params[cursor.param] = _written(cursor, lower, 0)
    if cursor.upper_param is not None:
        params[cursor.upper_param] = _written(cursor, upper, 1)
    return params


def _written(cursor: Cursor, position: int, grains_more: int) -> str | int:
    if cursor.type == "integer":
        return position + grains_more
    grain = _GRAIN[cursor.format]
    cut = position // grain * grain + grains_more * grain
    if cursor.format == "epochS":
        return cut // SECOND
    if cursor.format == "epochMs":
        return cut // 1000
    try:
        moment = _EPOCH + dt.timedelta(microseconds=cut)
    except OverflowError:
        raise SourceError(
            f"cursor {cursor.field!r}: {position} µs is no time", column=cursor.field
        ) from None
    return moment.date().isoformat() if cursor.format == "date" else f"{moment:%Y-%m-%dT%H:%M:%SZ}"
