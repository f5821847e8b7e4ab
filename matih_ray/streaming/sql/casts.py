"""CAST and TRY_CAST as Flink 2.3 does them: Java's numbers, Java's text of them, blanks ignored.

Every cast is a function from an array to (array, rows that failed); a row that failed is NULL in
the array, which is all that TRY_CAST needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import SqlNotSupportedError
from matih_ray.streaming.sql.types import APPROXIMATE, BITS, FlinkType

Cast = Callable[[pa.Array], pa.Array]

_DOUBLE = r"^[+-]?(NaN|Infinity|([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)$"
_INTEGER = r"^[+-]?[0-9]{1,18}(\.[0-9]*)?$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def cast_function(source: FlinkType, target: FlinkType) -> Cast:
    """The cast as a function of arrays; what cannot be cast becomes NULL.

    Raises:
        SqlNotSupportedError: There is no such cast here.
    """
    if source == target:
        return lambda array: array
    if source.kind == "NULL":
        return lambda array: pa.nulls(len(array), target.arrow)
    found = (
        _from_text(target)
        if source.kind == "STRING"
        else _to_text(source)
        if target.kind == "STRING"
        else _between(source, target)
    )
    if found is None:
        raise SqlNotSupportedError(f"CAST of {source} to {target} is not supported", clause="CAST")
    return found


def may_fail(source: FlinkType, target: FlinkType) -> bool:
    """Whether a value that is there can become NULL, which CAST must not let pass."""
    return source.kind == "STRING" and target.kind != "STRING"


def _from_text(target: FlinkType) -> Cast | None:
    if target.kind in APPROXIMATE:
        return lambda array: _to_double(array).cast(target.arrow)
    if target.is_integer:
        return lambda array: _to_integer(array, target)
    if target.kind == "BOOLEAN":
        return _to_boolean
    if target.kind == "DECIMAL":
        return lambda array: pa.array(
            [None if text is None else _decimal(text, target) for text in array.to_pylist()],
            target.arrow,
        )
    if target.is_time:
        return lambda array: parse_timestamps(pc.utf8_trim_whitespace(array), target)
    if target.kind == "DATE":
        return lambda array: _strict(pc.utf8_trim_whitespace(array), _DATE, target.arrow)
    return None


def _where(mask: pa.Array, array: pa.Array) -> pa.Array:
    return pc.if_else(mask, array, pa.scalar(None, array.type))


def _to_double(array: pa.Array) -> pa.Array:
    with suppress(pa.ArrowInvalid):
        found = array.cast(pa.float64())
        # Arrow has more spellings than Java of what is not finite, and no other ones else
        if pc.all(pc.is_finite(found)).as_py() is not False:
            return found
    text = pc.utf8_trim_whitespace(array)
    text = _where(pc.match_substring_regex(text, _DOUBLE), text)
    return pc.replace_substring_regex(text, r"^\+", "").cast(pa.float64())


def _to_integer(array: pa.Array, target: FlinkType) -> pa.Array:
    """Digits after a point are cut off; more than eighteen digits count as out of range."""
    text = pc.utf8_trim_whitespace(array)
    text = _where(pc.match_substring_regex(text, _INTEGER), text)
    text = pc.replace_substring_regex(text, r"^\+|\..*$", "")
    wide = text.cast(pa.int64())
    limit = 1 << (BITS[target.kind] - 1)
    fits = pc.and_(pc.greater_equal(wide, -limit), pc.less_equal(wide, limit - 1))
    return _where(fits, wide).cast(target.arrow)


def _to_boolean(array: pa.Array) -> pa.Array:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(array))
    true, false = (pc.is_in(text, pa.array(words)) for words in (_TRUE, _FALSE))
    return _where(pc.and_(pc.is_valid(array), pc.or_(true, false)), true)


def _decimal(text: str, target: FlinkType) -> Decimal | None:
    try:
        value = Decimal(text.strip()).quantize(
            Decimal(1).scaleb(-target.scale), rounding=ROUND_HALF_UP
        )
    except InvalidOperation:
        return None
    return value if len(value.as_tuple().digits) <= target.precision else None


def parse_timestamps(text: pa.Array, target: FlinkType, pattern: str = _TIMESTAMP) -> pa.Array:
    """Timestamps of text of this pattern; more digits than the type has are cut off."""
    exact = _strict(text, pattern, pa.timestamp("ns" if target.precision > 6 else "us"))
    step = 10 ** ((9 if target.precision > 6 else 6) - target.precision)
    if step > 1:
        ticks = exact.cast(pa.int64())
        exact = pc.subtract(ticks, _floor_rest(ticks, step)).cast(exact.type)
    zone = "UTC" if target.kind == "TIMESTAMP_LTZ" else None
    return exact.cast(pa.timestamp(target.arrow.unit), safe=False).cast(
        pa.timestamp(target.arrow.unit, tz=zone)
    )


def _floor_rest(ticks: pa.Array, step: int) -> pa.Array:
    values = np.mod(ticks.fill_null(0).to_numpy(zero_copy_only=False), step)
    return pa.array(values)


def _strict(text: pa.Array, pattern: str, kind: pa.DataType) -> pa.Array:
    """Cast what has the form; what has it and is no date (`2023-02-30`) one by one."""
    text = _where(pc.match_substring_regex(text, pattern), text)
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        return pa.concat_arrays([_one(value, kind) for value in text])


def _one(value: pa.Scalar, kind: pa.DataType) -> pa.Array:
    try:
        return pa.array([value.as_py()], pa.string()).cast(kind)
    except pa.ArrowInvalid:
        return pa.nulls(1, kind)


def _to_text(source: FlinkType) -> Cast | None:
    if source.kind in APPROXIMATE:
        return lambda array: pa.array([java_text(value) for value in array.to_pylist()], "string")
    if source.kind == "BOOLEAN":
        return lambda array: pc.utf8_upper(array.cast(pa.string()))
    if source.is_integer or source.kind in ("DECIMAL", "DATE"):
        return lambda array: array.cast(pa.string())
    if source.kind == "TIMESTAMP":
        drop = {"s": 0, "ms": 3, "us": 6, "ns": 9}[source.arrow.unit] - source.precision
        return lambda array: pc.utf8_slice_codeunits(
            pc.strftime(array, "%Y-%m-%d %H:%M:%S"), 0, -drop if drop else None
        )
    return None


def encodable(text: str) -> str:
    """Text as Java would write it to UTF-8: half of a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def java_text(value: float | None) -> str | None:
    """A double as Java 19 and later print it: shortest, with an exponent outside 1e-3 to 1e7."""
    if value is None or math.isnan(value):
        return None if value is None else "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = format(Decimal(repr(value)), "f")
        return text if "." in text else text + ".0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{int(exponent) + len(text) - 1}"


def _between(source: FlinkType, target: FlinkType) -> Cast | None:
    if source.is_numeric and target.is_numeric:
        return _number(source, target)
    if source.kind == "BOOLEAN" and target.is_numeric and target.kind != "DECIMAL":
        return lambda array: array.cast(pa.int8()).cast(target.arrow)
    if source.is_integer and target.kind == "BOOLEAN":
        return lambda array: pc.not_equal(array, pa.scalar(0, array.type))
    times = ("TIMESTAMP", "TIMESTAMP_LTZ", "DATE")
    if source.kind in times and target.kind in times:
        return lambda array: _time(array, source, target)
    return None


def _time(array: pa.Array, source: FlinkType, target: FlinkType) -> pa.Array:
    """Between times in UTC; digits that the target does not have are cut off, downwards."""
    if target.kind == "DATE":
        return pc.floor_temporal(array, unit="day").cast(pa.date32())
    if source.kind == "DATE":
        return array.cast(target.arrow)
    if target.precision < source.precision:
        unit = {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}
        array = pc.floor_temporal(array, unit=unit[target.arrow.unit])
    if source.kind != target.kind:  # the session's zone is UTC
        plain = array.cast(pa.int64()).cast(pa.timestamp(array.type.unit))
        array = plain.cast(pa.timestamp(array.type.unit, tz=target.arrow.tz))
    return array.cast(target.arrow)


def _number(source: FlinkType, target: FlinkType) -> Cast | None:
    if target.kind == "DECIMAL":
        if source.kind in APPROXIMATE:
            return None
        return lambda array: _to_decimal(array, target)
    if source.kind == "DECIMAL":
        if target.is_integer:
            return lambda array: pc.trunc(array).cast(target.arrow, safe=False)
        return lambda array: array.cast(pa.float64()).cast(target.arrow)
    if source.kind in APPROXIMATE and target.is_integer:
        return lambda array: _saturated(array, target)
    return lambda array: array.cast(target.arrow, safe=False)  # Java's: wide to narrow wraps


def _to_decimal(array: pa.Array, target: FlinkType) -> pa.Array:
    """Rounded half up; what does not fit is NULL."""
    wide = array if pa.types.is_decimal(array.type) else array.cast(pa.decimal128(38, 0))
    try:
        rounded = pc.round(wide, ndigits=target.scale, round_mode="half_towards_infinity")
        return rounded.cast(target.arrow)
    except pa.ArrowInvalid:
        texts = (None if value is None else str(value) for value in wide.to_pylist())
        return pa.array(
            [None if text is None else _decimal(text, target) for text in texts], target.arrow
        )


def _saturated(array: pa.Array, target: FlinkType) -> pa.Array:
    """Java's `(int) double`: towards zero, NaN is 0, what is too large is the largest."""
    bits = max(BITS[target.kind], 32)  # Java narrows to int first, then wraps
    limit = 1 << (bits - 1)
    values = np.nan_to_num(array.fill_null(0).to_numpy(zero_copy_only=False), nan=0.0)
    whole = np.trunc(values)
    inside = np.where(np.abs(whole) < limit, whole, 0).astype(np.int64)
    whole_numbers = np.where(whole >= limit, limit - 1, np.where(whole <= -limit, -limit, inside))
    found = pa.array(whole_numbers, pa.int64(), mask=np.asarray(array.is_null()))
    return found.cast(target.arrow, safe=False)
