"""Exact decoding of texts that Arrow's parsers refuse: infinite, BC and far dates and timestamps.

Arrow parses years 1 to 9999. PostgreSQL's dates run from 4713 BC to 5874897, its timestamps to
294276. Values that Arrow can parse stay on its vectorised path; only the distinct others are
decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError

DATE_INFINITY_DAYS = 2**31 - 1
TIMESTAMP_INFINITY_US = 2**63 - 1

_DAY_US = 86_400_000_000
_ORDINARY_DATE = r"^\d{4}-\d{2}-\d{2}$"
_ORDINARY_TIMESTAMP = r"^\d{4}-\d{2}-\d{2} [0-9:.]+(\+00)?$"
_DATE = re.compile(r"(\d{4,})-(\d{2})-(\d{2})( BC)?")
_TIMESTAMP = re.compile(r"(\d{4,}-\d{2}-\d{2}) (\d{2}):(\d{2}):(\d{2})(\.\d{1,6})?(?:\+00)?( BC)?")


def decode_texts(texts: pa.Array, arrow: pa.DataType, column: str) -> pa.Array:
    """Values of a date, timestamp, decimal or time column from PostgreSQL's text for them.

    Raises:
        UnrepresentableValueError: A value has no exact form in `arrow`.
    """
    if pa.types.is_date32(arrow):
        return _decode(texts, arrow, _ORDINARY_DATE, pa.int32(), _days)
    if pa.types.is_timestamp(arrow):
        return _decode(
            texts, arrow, _ORDINARY_TIMESTAMP, pa.int64(), lambda text: _microseconds(text, column)
        )
    if pa.types.is_decimal(arrow):
        return _decimals(texts, arrow, column)
    raise UnrepresentableValueError(
        f"column {column!r} holds a value that {arrow} cannot; "
        f'set policy.encodings={{"{column}": "text"}}',
        column=column,
    )


def _decode(
    texts: pa.Array,
    arrow: pa.DataType,
    ordinary: str,
    physical: pa.DataType,
    decode_one: Callable[[str], int],
) -> pa.Array:
    """Cast the ordinary texts, and look the others up in a table of their distinct values."""
    is_ordinary = pc.match_substring_regex(texts, ordinary)
    values = pc.cast(pc.if_else(is_ordinary, texts, pa.scalar(None, pa.string())), arrow)
    others = pc.unique(pc.filter(texts, pc.invert(is_ordinary)))
    decoded = pa.array([decode_one(text) for text in others.to_pylist()], physical).view(arrow)
    return pc.coalesce(values, decoded.take(pc.index_in(texts, value_set=others)))


def _days(text: str) -> int:
    """Days since 1970-01-01 of a PostgreSQL date."""
    if text == "infinity":
        return DATE_INFINITY_DAYS
    if text == "-infinity":
        return -DATE_INFINITY_DAYS
    match = _DATE.fullmatch(text)
    if match is None:
        raise UnrepresentableValueError(f"not a date in ISO style: {text!r}")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    return _days_from_civil(1 - year if match[4] else year, month, day)


def _microseconds(text: str, column: str) -> int:
    """Microseconds since 1970-01-01 00:00:00 of a PostgreSQL timestamp in UTC."""
    if text == "infinity":
        return TIMESTAMP_INFINITY_US
    if text == "-infinity":
        return -TIMESTAMP_INFINITY_US
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise UnrepresentableValueError(f"not a timestamp in ISO style: {text!r}", column=column)
    date, hours, minutes, seconds, fraction, bc = match.groups()
    clock_s = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    micros = int((fraction or ".")[1:].ljust(6, "0"))
    value = _days(date + (bc or "")) * _DAY_US + clock_s * 1_000_000 + micros
    if abs(value) >= TIMESTAMP_INFINITY_US:
        raise UnrepresentableValueError(
            f"column {column!r} holds {text}, past the end of 64-bit microseconds; "
            f'set policy.encodings={{"{column}": "text"}}',
            column=column,
        )
    return value


def _days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, year 0 being 1 BC.

    Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
    """
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468


def _decimals(texts: pa.Array, arrow: pa.DataType, column: str) -> pa.Array:
    try:
        return pc.cast(texts, arrow)
    except pa.ArrowInvalid:
        special = pc.unique(pc.filter(texts, pc.match_substring_regex(texts, "[a-zA-Z]")))
        what = special[0].as_py() if len(special) else f"a value that {arrow} cannot hold"
        raise UnrepresentableValueError(
            f"column {column!r} holds {what}; "
            f'set policy.encodings={{"{column}": "text"}} to load it as text',
            column=column,
        ) from None
