"""Types of text. A column is text unless its whole sample is of another kind, and a value is never
bent to fit: leading zeros, exponents and spaces make text. Pure."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.sources.files.types import DECIMAL_DIGITS, UTC_MICROSECONDS

_DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?"
_INTEGER = r"-?(0|[1-9]\d{0,18})"
_DECIMAL = r"-?(0|[1-9]\d*)(\.\d+)?"
_EXACT: dict[pa.DataType, str] = {
    pa.bool_(): "true|false",
    pa.int32(): _INTEGER,
    pa.int64(): _INTEGER,
    pa.date32(): _DATE,
    pa.timestamp("us"): rf"{_DATE}[T ]{_TIME}",
    UTC_MICROSECONDS: rf"{_DATE}[T ]{_TIME}(Z|[+-]\d\d:\d\d)",
}
_INFERRED = (pa.bool_(), pa.int64(), pa.date32(), pa.timestamp("us"), UTC_MICROSECONDS)


def type_of(values: pa.ChunkedArray) -> pa.DataType:
    """The narrowest type that holds every value of a sample of text exactly."""
    present = values.drop_null().unique()
    if not len(present):
        return pa.string()
    for kind in _INFERRED:
        if first_misfit(present, kind) is None:
            return kind
    return _decimal_of(present) or pa.string()


def first_misfit(values: pa.Array, kind: pa.DataType) -> int | None:
    """Index of the first value that is not exactly of that type, None when all are."""
    pattern = _EXACT.get(kind) or (_DECIMAL if pa.types.is_decimal(kind) else None)
    if pattern is not None:
        fits = pc.fill_null(pc.match_substring_regex(values, f"^({pattern})$"), fill_value=True)
        index = pc.index(fits, value=False).as_py()
        if index >= 0:
            return int(index)
    if _castable(values, kind):
        return None
    # Only reached with a value that looks right and is not: the 30th of February, 2**63.
    return _bisected(values, lambda part: _castable(part, kind))


def cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text as that type; call `first_misfit` when it fails.

    Raises:
        pyarrow.ArrowInvalid: A value is not of that type.
    """
    return pc.cast(values, kind)


def _castable(values: pa.Array, kind: pa.DataType) -> bool:
    try:
        cast(values, kind)
    except pa.ArrowInvalid:
        return False
    return True


def _bisected(values: pa.Array, holds: Callable[[pa.Array], bool]) -> int:
    low, high = 0, len(values)  # values[:low] holds, values[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if holds(values.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def _decimal_of(values: pa.Array) -> pa.DataType | None:
    """Decimals of as many places as the sample has. A number of more places is refused later."""
    fits = pc.match_substring_regex(values, f"^({_DECIMAL})$")
    if not pc.all(fits).as_py():
        return None
    places = [len(text.partition(".")[2]) for text in values.to_pylist()]
    kind = pa.decimal128(DECIMAL_DIGITS, max(places)) if max(places) < DECIMAL_DIGITS else None
    return kind if kind is not None and first_misfit(values, kind) is None else None
