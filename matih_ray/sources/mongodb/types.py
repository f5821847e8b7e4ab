"""How each BSON type arrives: the table of types, and canonical Extended JSON. Pure.

Extended JSON: https://github.com/mongodb/specifications, `extended-json`; canonical, so that every
value keeps its type and each number its exact digits.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
from bson import json_util
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import JSONMode, JSONOptions
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from matih_ray.model.unit import Fidelity
from matih_ray.sources.documents.columns import Arrival, Dialect

_CANONICAL = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
)
_UUID = "uuid"
# Whole numbers up to here are the same as doubles.
_EXACT_IN_DOUBLE = range(-(2**53), 2**53 + 1)
_INT64 = range(-(2**63), 2**63)

# pymongo's classes to MongoDB's names of types (`$type`). Looked up by exact class: bool is an int,
# Int64 too, and Code is a str.
_NAMES: dict[type, str] = {
    float: "double",
    str: "string",
    dict: "object",
    list: "array",
    bytes: "binData",
    ObjectId: "objectId",
    bool: "bool",
    DatetimeMS: "date",
    Regex: "regex",
    DBRef: "object",
    Code: "javascript",
    int: "int",
    Timestamp: "timestamp",
    Int64: "long",
    Decimal128: "decimal",
    MinKey: "minKey",
    MaxKey: "maxKey",
}


def native_type(value: Any) -> str | None:
    """The name of a value's BSON type as `$type` has it; `uuid` and `binData(n)` for subtypes."""
    if value is None:
        return None
    if isinstance(value, Binary):
        return _UUID if value.subtype == UUID_SUBTYPE else f"binData({value.subtype})"
    return _NAMES[type(value)]


def extended_json(value: Any) -> str:
    """A value as canonical Extended JSON, fields in the document's own order."""
    return json_util.dumps(
        value, json_options=_CANONICAL, ensure_ascii=False, separators=(",", ":")
    )


def from_extended_json(text: str) -> Any:
    """The value that `extended_json` wrote.

    Raises:
        ValueError: It is not Extended JSON.
    """
    return json_util.loads(text, json_options=_CANONICAL)


def _only(kind: type) -> Any:
    def same(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(kind.__name__)
        return value

    return same


def _long(value: Any) -> int:
    """An int or a long; a double without a fraction too, because JavaScript writes those."""
    if type(value) is float and value.is_integer() and str(value) != "-0.0":
        whole = int(value)
        if whole not in _INT64:
            raise ValueError("more than 64 bits")
        return whole
    if type(value) not in (int, Int64):
        raise TypeError("not a whole number")
    return int(value)


def _double(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) not in (int, Int64) or value not in _EXACT_IN_DOUBLE:
        raise TypeError("not exact as a double")
    return float(value)


def _date(value: Any) -> int:
    if type(value) is not DatetimeMS:
        raise TypeError("not a date")
    return int(value)


def _hex(value: Any) -> str:
    if type(value) is not ObjectId:
        raise TypeError("not an ObjectId")
    return str(value)


def _uuid(value: Any) -> str:
    if not isinstance(value, Binary) or value.subtype != UUID_SUBTYPE:
        raise TypeError("not a UUID")
    return str(uuid.UUID(bytes=bytes(value)))


def _decimal_text(value: Any) -> str:
    if type(value) is not Decimal128:
        raise TypeError("not a Decimal128")
    return str(value)


def _number(value: Any) -> Decimal:
    if type(value) is Decimal128:
        return value.to_decimal()
    if type(value) not in (int, Int64, float):
        raise TypeError("not a number")
    return Decimal(value)


ARRIVALS: Mapping[str, Arrival] = {
    "objectId": Arrival(pa.string(), _hex, Fidelity.ENCODED, "24 hexadecimal digits"),
    "int": Arrival(pa.int64(), _long, Fidelity.WIDENED),
    "long": Arrival(pa.int64(), _long),
    "double": Arrival(pa.float64(), _double),
    "decimal": Arrival(
        pa.string(), _decimal_text, Fidelity.ENCODED, "decimal digits; NaN, Infinity, -Infinity"
    ),
    "date": Arrival(pa.timestamp("ms", tz="UTC"), _date),
    "bool": Arrival(pa.bool_(), _only(bool)),
    "string": Arrival(pa.string(), _only(str)),
    "binData": Arrival(pa.binary(), _only(bytes)),
    _UUID: Arrival(pa.string(), _uuid, Fidelity.ENCODED, "canonical UUID text"),
}

DIALECT = Dialect(
    native_type=native_type,
    arrivals=ARRIVALS,
    widened={frozenset({"int", "long"}): "long", frozenset({"int", "double"}): "double"},
    json_text=extended_json,
    fields_text=extended_json,
    json_name="canonical Extended JSON",
    number=_number,
    numbers=frozenset({"int", "long", "double", "decimal"}),
)
