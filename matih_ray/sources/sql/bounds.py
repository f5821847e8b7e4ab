"""Bounds as text: from Arrow to the forms of `dialect`, checked by form, and reckoned with. Pure.

The text never comes from a driver's own formatting, which differs, and no bound becomes SQL before
its form was checked: a database would take `'x'` for the number 0, or worse, for a statement.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import ROUND_FLOOR, Context, Decimal

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError
from matih_ray.sources.sql.dialect import BoundKind

_DATE = r"\d{4}-\d\d-\d\d"
_MOMENT = re.compile(rf"{_DATE} \d\d:\d\d:\d\d(\.\d{{1,9}})?")
_FORMS: dict[BoundKind, re.Pattern[str]] = {
    BoundKind.INTEGER: re.compile(r"-?\d{1,76}"),
    BoundKind.DECIMAL: re.compile(r"-?\d{1,76}(\.\d{1,76})?"),
    BoundKind.DATE: re.compile(_DATE),
    BoundKind.TIMESTAMP: _MOMENT,
    BoundKind.TIMESTAMP_TZ: _MOMENT,
    BoundKind.TEXT: re.compile(r"(?s).*"),
    BoundKind.BINARY: re.compile(r"([0-9A-F]{2})*"),
}
_MOMENTS = (BoundKind.TIMESTAMP, BoundKind.TIMESTAMP_TZ)
# Further digits of a second are cut off for a look-back, which may begin earlier than asked.
_MICROSECOND_CHARS = len("2024-01-31 23:59:59.123456")
# More digits than any decimal has, so that no subtraction is rounded but where it should be.
_EXACT = Context(prec=200, rounding=ROUND_FLOOR)


def is_bound(kind: BoundKind, text: str) -> bool:
    """Whether the text is a bound of that kind, by its form."""
    return _FORMS[kind].fullmatch(text) is not None


def texts_of(kind: BoundKind, values: pa.Array | pa.ChunkedArray, column: str) -> list[str]:
    """Values without NULLs as bounds.

    Raises:
        UnrepresentableValueError: A value has no such form, as a date after the year 9999.
    """
    texts = _texts(kind, values)
    wrong = next((text for text in texts if not is_bound(kind, text)), None)
    if wrong is not None:
        raise UnrepresentableValueError(
            f"column {column!r} holds {wrong!r}, which cannot be the bound of a slice; correct it, "
            "or make a view without it and ingest that",
            column=column,
        )
    return texts


def minus(kind: BoundKind, text: str, lookback: float) -> str | None:
    """A bound minus seconds (for times) or units (for numbers), rounded down; None for the rest."""
    if kind is BoundKind.INTEGER:
        return str(math.floor(_EXACT.subtract(Decimal(text), Decimal(repr(lookback)))))
    if kind is BoundKind.DECIMAL:
        places = len(text.partition(".")[2])
        less = _EXACT.subtract(Decimal(text), Decimal(repr(lookback)))
        return format(less.quantize(Decimal(1).scaleb(-places), context=_EXACT), "f")
    if kind is BoundKind.DATE:
        return _earlier(text, dt.timedelta(days=math.ceil(lookback / 86_400))).date().isoformat()
    if kind in _MOMENTS:
        less_us = dt.timedelta(microseconds=math.ceil(lookback * 1_000_000))
        return _earlier(text, less_us).isoformat(" ", "microseconds")
    return None


def _texts(kind: BoundKind, values: pa.Array | pa.ChunkedArray) -> list[str]:
    if kind is BoundKind.DATE:
        return [str(text) for text in pc.cast(values, pa.string()).to_pylist()]
    if kind in _MOMENTS and not pa.types.is_string(values.type):
        without_zone = pc.cast(values, pa.timestamp(values.type.unit))  # of UTC stays as it is
        return [str(text) for text in pc.cast(without_zone, pa.string()).to_pylist()]
    found = values.to_pylist()
    if kind is BoundKind.BINARY:
        return [value.hex().upper() for value in found]
    if kind is BoundKind.DECIMAL:
        return [format(Decimal(value), "f") for value in found]
    return [str(value) for value in found]


def _earlier(text: str, by: dt.timedelta) -> dt.datetime:
    """A date or time minus a duration, not before year 1."""
    day, _, clock = text[:_MICROSECOND_CHARS].partition(" ")
    try:
        moment = dt.datetime.fromisoformat(day)
        if clock:
            hours, minutes, seconds = clock.split(":")
            micros = int(Decimal(seconds) * 1_000_000)
            moment += dt.timedelta(hours=int(hours), minutes=int(minutes), microseconds=micros)
        return moment - by
    except (OverflowError, ValueError):  # ValueError: year 0, which some databases have
        return dt.datetime(1, 1, 1)  # noqa: DTZ001 a bound carries no zone
