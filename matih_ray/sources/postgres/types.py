"""How each PostgreSQL type arrives, decided here and nowhere else.

| PostgreSQL                   | Arrow              | how     | encoding              |
|------------------------------|--------------------|---------|-----------------------|
| boolean                      | bool               | exact   |                       |
| smallint                     | int32              | widened |                       |
| integer, bigint              | int32, int64       | exact   |                       |
| oid, xid, cid                | int64              | widened |                       |
| real, double precision       | float, double      | exact   |                       |
| numeric(p,s), 0 ≤ s ≤ p ≤ 38 | decimal128(p,s)    | exact   | NaN is an error       |
| numeric(p,s), s < 0          | decimal128(p-s,0)  | widened | up to 38 digits       |
| numeric(p,s), s > p          | decimal128(s,s)    | widened | up to 38 digits       |
| other numeric                | string             | encoded | digits, NaN, Infinity |
| money                        | decimal128(19,2)   | encoded | no currency sign      |
| text, varchar, name, citext  | string             | exact   |                       |
| char(n)                      | string             | exact   | padding kept          |
| bytea                        | binary             | exact   |                       |
| date                         | date32             | exact   | ±infinity, see below  |
| timestamp                    | timestamp[us]      | exact   | ±infinity, see below  |
| timestamptz                  | timestamp[us, UTC] | exact   | ±infinity, see below  |
| time                         | string             | encoded | HH:MM:SS.ffffff       |
| interval                     | string             | encoded | ISO 8601 duration     |
| everything else              | string             | encoded | PostgreSQL's own text |

"Everything else" is timetz, json, jsonb, xml, uuid, inet, cidr, macaddr, bit, ranges, geometric
types, tsvector, arrays, enums, composites, hstore, reg… and extension types. Their text is what
`pg_dump` writes, so it reads back exactly. A domain arrives as its base type.

Why so: an Iceberg table (format 2) must hold the result, and it has no interval, duration or
unsigned type and no integer under 32 bits. Arrays stay text because a column declared `int[]` may
hold arrays of any dimension and lower bound, which a list cannot say. `time` stays text because
24:00:00 is a value of it, and Arrow readers turn it into 00:00:00 without a word. Infinite dates
are ±(2^31-1) days and infinite timestamps ±(2^63-1) µs, as in DuckDB: no finite value arrives as
these, and they keep their place in the order. Timestamps from 294247-01-10 04:00:54.775807 on
(PostgreSQL ends in 294276) do not fit 64 bits of microseconds since 1970 and are an error.

`policy.encodings` overrides per column: `text` for every type, `decimal(p,s)` for numeric and
money, `time` for time (24:00:00 is an error then). A value that does not fit is an error which
names the column; nothing is ever rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from matih_ray.errors import ValidationError
from matih_ray.model.unit import Fidelity

# Arrow's decimal128 and Iceberg's decimal end here.
MAX_DECIMAL_DIGITS = 38

# Between the name of a domain and that of its base type in a column's native type.
DOMAIN_OVER = " over "

_NATIVE = re.compile(
    r"(?P<base>[^(]+?)(?:\((?P<modifier>[^)]*)\))?(?P<zone> with(?:out)? time zone)?"
)
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")

DATE_INFINITY = "±infinity as ±2147483647 days"
TIMESTAMP_INFINITY = "±infinity as ±9223372036854775807 µs"
OWN_TEXT = "PostgreSQL text"


@dataclass(frozen=True)
class TypeMapping:
    """How a column arrives. `expression` is SQL with `{}` for the column's quoted name.

    `loose` decimals come with any number of digits, so each must be checked against its type.
    """

    arrow: pa.DataType
    fidelity: Fidelity
    encoding: str | None = None
    expression: str = "{}"
    loose: bool = False


def _exact(arrow: pa.DataType, encoding: str | None = None) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.EXACT, encoding)


def _widened(arrow: pa.DataType) -> TypeMapping:
    return TypeMapping(arrow, Fidelity.WIDENED)


def _text(encoding: str = OWN_TEXT) -> TypeMapping:
    return TypeMapping(pa.string(), Fidelity.ENCODED, encoding)


_BY_NAME: dict[str, TypeMapping] = {
    "boolean": _exact(pa.bool_()),
    "smallint": _widened(pa.int32()),
    "integer": _exact(pa.int32()),
    "bigint": _exact(pa.int64()),
    "oid": _widened(pa.int64()),
    "xid": _widened(pa.int64()),
    "cid": _widened(pa.int64()),
    "real": _exact(pa.float32()),
    "double precision": _exact(pa.float64()),
    "money": TypeMapping(
        pa.decimal128(19, 2),
        Fidelity.ENCODED,
        "amount without currency sign",
        "{}::numeric",
        loose=True,  # the database's lc_monetary decides on the number of decimals
    ),
    "text": _exact(pa.string()),
    "character varying": _exact(pa.string()),
    "character": _exact(pa.string(), "padded with spaces to its length"),
    "bpchar": _exact(pa.string()),
    "name": _exact(pa.string()),
    "bytea": _exact(pa.binary()),
    "date": _exact(pa.date32(), DATE_INFINITY),
    "timestamp without time zone": _exact(pa.timestamp("us"), TIMESTAMP_INFINITY),
    "timestamp with time zone": _exact(pa.timestamp("us", tz="UTC"), TIMESTAMP_INFINITY),
    "time without time zone": _text("HH:MM:SS.ffffff, 24:00:00 included"),
    "time with time zone": _text("HH:MM:SS.ffffff and offset"),
    "json": _text("JSON text as stored"),
    "jsonb": _text("JSON text in PostgreSQL's normal form"),
    "xml": _text("XML text"),
    "uuid": _text("canonical UUID text"),
    "bit": _text("digits 0 and 1"),
    "bit varying": _text("digits 0 and 1"),
}


def mapping_of(native_type: str) -> TypeMapping:
    """How a column of a native type arrives by default.

    Args:
        native_type: As `catalog` writes it: `numeric(15,2)`, `public.mood`,
            `public.amount over numeric(12,2)`.
    """
    base = native_type.rpartition(DOMAIN_OVER)[2]
    if base.endswith("[]"):
        return _text("PostgreSQL array text")
    if base.endswith(".citext"):
        return _exact(pa.string())
    name, modifier = _parts(base)
    if name == "numeric":
        return _numeric(modifier)
    if name.startswith("interval"):
        return _text("ISO 8601 duration; months, days and microseconds kept apart")
    return _BY_NAME.get(name) or _text()


def overridden(native_type: str, encoding: str, column: str) -> TypeMapping:
    """How a column arrives under `policy.encodings[column]`.

    Raises:
        ValidationError: There is no such encoding, or not for this type.
    """
    name, _ = _parts(native_type.rpartition(DOMAIN_OVER)[2])
    if encoding == "text":
        return _text()
    if encoding == "time" and name == "time without time zone":
        return _exact(pa.time64("us"))
    decimal = _DECIMAL.fullmatch(encoding)
    if decimal is not None and name in ("numeric", "money"):
        precision, scale = int(decimal[1]), int(decimal[2])
        if 1 <= precision <= MAX_DECIMAL_DIGITS and scale <= precision:
            expression = "{}::numeric" if name == "money" else "{}"
            return TypeMapping(
                pa.decimal128(precision, scale), Fidelity.ENCODED, encoding, expression, loose=True
            )
    raise ValidationError(
        f"column {column!r} of type {native_type} has no encoding {encoding!r}; there is `text` "
        "for all types, `decimal(p,s)` with s ≤ p ≤ 38 for numeric and money, `time` for time",
        field=f"encodings.{column}",
    )


def _numeric(modifier: str | None) -> TypeMapping:
    if modifier is None:
        return _text("decimal digits; NaN, Infinity, -Infinity")
    precision, scale = (int(part) for part in modifier.split(","))
    # PostgreSQL 15 allows scales below zero (whole tens) and beyond the precision (leading zeros).
    digits, places = max(precision, scale, precision - scale), max(scale, 0)
    if digits > MAX_DECIMAL_DIGITS:
        return _text("decimal digits; NaN")
    arrow = pa.decimal128(digits, places)
    return _exact(arrow) if 0 <= scale <= precision else _widened(arrow)


def _parts(native_type: str) -> tuple[str, str | None]:
    """`timestamp(3) with time zone` → (`timestamp with time zone`, `3`)."""
    match = _NATIVE.fullmatch(native_type)
    if match is None:
        return native_type, None
    return match["base"] + (match["zone"] or ""), match["modifier"]
