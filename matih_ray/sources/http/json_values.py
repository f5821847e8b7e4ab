"""JSON, exactly: what an answer holds, and how each kind of value arrives.

| JSON                     | Arrow              | how     | encoding                  |
|--------------------------|--------------------|---------|---------------------------|
| true, false              | bool               | exact   |                           |
| whole number, 64 bits    | int64              | exact   |                           |
| larger whole number      | string             | encoded | decimal digits            |
| other number             | string             | encoded | decimal digits as sent    |
| string                   | string             | exact   |                           |
| object, array, mixture   | string             | encoded | JSON text                 |

A stream's `schema` may say more about a field: `decimal(p,s)`, `double` (a number that a double's
shortest text names), `date`, `timestamp` (ISO 8601 with an offset, as UTC) and `datetime` (without
one). Text is never taken for a time by its looks.

Numbers are never parsed as floats, and duplicate names are refused (`documents.exact_json`).
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pyarrow as pa

from matih_ray.errors import SourceError
from matih_ray.model.unit import EndpointUnitDescriptor, Fidelity
from matih_ray.sources.documents import exact_json
from matih_ray.sources.documents.columns import Arrival, Dialect
from matih_ray.sources.documents.numbers import decimal_type, fitting_decimal

_INT64 = range(-(2**63), 2**63)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(Z|z|[+-]\d\d(?::?\d\d)?)?)?"
)


def parse(text: bytes, where: str) -> Any:
    """The value of JSON text: numbers as int or Decimal.

    Raises:
        SourceError: It is not JSON.
    """
    try:
        return exact_json.parse(text)
    except (ValueError, RecursionError) as error:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else "is not JSON"
        raise SourceError(
            f"{where}: the answer {problem}; check the address and the API", bytes=len(text)
        ) from None


def at_path(value: Any, path: str | None) -> Any:
    """The value at a path of names, None if a step is missing."""
    for name in path.split(".") if path else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def micros(text: str) -> tuple[int, bool, bool]:
    """An ISO 8601 time as microseconds since 1970, whether it has an offset, and whether it is
    exact (digits beyond microseconds are cut).

    Raises:
        ValueError: It is none.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an ISO 8601 time")
    day, clock, fraction, offset = match.groups()
    moment = dt.datetime.fromisoformat(f"{day}T{clock or '00:00'}+00:00")
    whole = int(moment.timestamp()) - _offset_s(offset)  # exact: there is no fraction
    digits = (fraction or "").ljust(6, "0")
    return whole * 1_000_000 + int(digits[:6]), offset is not None, not digits[6:].strip("0")


@lru_cache(maxsize=100)  # of a site's times nearly all have the same one
def _offset_s(offset: str | None) -> int:
    if offset in (None, "Z", "z"):
        return 0
    digits = str(offset)[1:].replace(":", "").ljust(4, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return -seconds if str(offset)[0] == "-" else seconds


# --- how each kind arrives -------------------------------------------------------------------


def native_type(value: Any) -> str | None:
    """The kind of a parsed value."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return "integer" if value in _INT64 else "big integer"
    return _NAMES[type(value)]


_NAMES: dict[type, str] = {
    bool: "boolean",
    Decimal: "number",
    str: "text",
    dict: "object",
    list: "array",
}


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError("not a boolean")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        raise ValueError("not a whole number of 64 bits")
    return value


def _big_integer(value: Any) -> str:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return str(value)


def _number(value: Any) -> Decimal:
    if type(value) is int:
        return Decimal(value)
    if type(value) is not Decimal:
        raise TypeError("not a number")
    return value


def _digits(value: Any) -> str:
    return str(_number(value))


def _double(value: Any) -> float:
    number = _number(value)
    double = float(number)
    # compares exactly; infinity, for what is too large, equals no number
    if Decimal(repr(double)) != number:
        raise ValueError("more digits than a double")
    return double


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not text")
    value.encode()
    return value


def _json(value: Any) -> str:
    try:
        return exact_json.json_text(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _date(value: Any) -> dt.date:
    if len(_text(value)) != len("2024-01-01"):
        raise ValueError("not a date")
    return dt.date.fromisoformat(value)


def _timestamp(value: Any) -> int:
    moment, has_offset, exact = micros(_text(value))
    if not (has_offset and exact):
        raise ValueError("no offset, or more than microseconds")
    return moment


def _datetime(value: Any) -> int:
    moment, has_offset, exact = micros(_text(value))
    if has_offset or not exact:
        raise ValueError("an offset, or more than microseconds")
    return moment


DIALECT = Dialect(
    native_type=native_type,
    arrivals={
        "boolean": Arrival(pa.bool_(), _boolean),
        "integer": Arrival(pa.int64(), _integer),
        "big integer": Arrival(pa.string(), _big_integer, Fidelity.ENCODED, "decimal digits"),
        "number": Arrival(pa.string(), _digits, Fidelity.ENCODED, "decimal digits as sent"),
        "double": Arrival(pa.float64(), _double),
        "text": Arrival(pa.string(), _text),
        "date": Arrival(pa.date32(), _date),
        "timestamp": Arrival(
            pa.timestamp("us", tz="UTC"), _timestamp, Fidelity.ENCODED, "the instant as UTC"
        ),
        "datetime": Arrival(pa.timestamp("us"), _datetime),
    },
    widened={
        frozenset({"integer", "number"}): "number",
        frozenset({"big integer", "number"}): "number",
        frozenset({"integer", "big integer", "number"}): "number",
        frozenset({"integer", "big integer"}): "big integer",
    },
    json_text=_json,
    fields_text=_json,
    json_name="JSON text",
    number=_number,
    numbers=frozenset({"integer", "big integer", "number", "double"}),
)


def with_decimals(native_types: set[str]) -> Dialect:
    """The dialect that also knows those of the native types that are `decimal(p,s)`.

    Raises:
        SourceError: A decimal has more digits than Arrow's.
    """
    arrivals = dict(DIALECT.arrivals)
    for name in native_types:
        if name.startswith("decimal("):
            if (arrow := decimal_type(name)) is None:
                raise SourceError(f"there is no {name}: 1 ≤ p ≤ 38 and s ≤ p; change the schema")
            arrivals[name] = Arrival(arrow, _fitting(arrow))
    return replace(DIALECT, arrivals=arrivals)


def dialect_of(unit: EndpointUnitDescriptor) -> Dialect:
    """The dialect of a unit's columns."""
    return with_decimals({column.native_type for column in unit.columns})


def _fitting(arrow: pa.DataType) -> Any:
    fit = fitting_decimal(arrow)
    return lambda value: fit(_number(value))
