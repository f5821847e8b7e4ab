"""Flink's types, and the Arrow types that hold their values."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from matih_ray.errors import SqlNotSupportedError

# Precisions that Flink gives integers when they meet decimals.
INTEGERS = {"TINYINT": 3, "SMALLINT": 5, "INT": 10, "BIGINT": 19}
BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
APPROXIMATE = ("FLOAT", "DOUBLE")
MAX_DECIMAL_PRECISION = 38


@dataclass(frozen=True)
class FlinkType:
    """A logical type; `precision` also counts the fractional digits of a timestamp."""

    kind: str
    precision: int = 0
    scale: int = 0
    element: FlinkType | None = None

    def __str__(self) -> str:
        if self.kind == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        if self.kind in ("TIMESTAMP", "TIMESTAMP_LTZ"):
            return f"{self.kind}({self.precision})"
        if self.kind == "ARRAY":
            return f"ARRAY<{self.element}>"
        return self.kind

    @property
    def is_integer(self) -> bool:
        """TINYINT to BIGINT."""
        return self.kind in INTEGERS

    @property
    def is_numeric(self) -> bool:
        """Any number."""
        return self.kind in INTEGERS or self.kind in APPROXIMATE or self.kind == "DECIMAL"

    @property
    def is_time(self) -> bool:
        """A timestamp with or without local time zone."""
        return self.kind in ("TIMESTAMP", "TIMESTAMP_LTZ")

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of a column of this type."""
        if self.kind == "DECIMAL":
            return pa.decimal128(self.precision, self.scale)
        if self.is_time:
            zone = "UTC" if self.kind == "TIMESTAMP_LTZ" else None
            return pa.timestamp(_unit(self.precision), tz=zone)
        if self.element is not None:
            return pa.list_(self.element.arrow)
        return _ARROW[self.kind]


_ARROW = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "NULL": pa.null(),
    "INTERVAL": pa.int64(),  # milliseconds
}
_NAMES = {
    exp.DataType.Type.TEXT: "STRING",
    exp.DataType.Type.BOOLEAN: "BOOLEAN",
    exp.DataType.Type.TINYINT: "TINYINT",
    exp.DataType.Type.SMALLINT: "SMALLINT",
    exp.DataType.Type.INT: "INT",
    exp.DataType.Type.BIGINT: "BIGINT",
    exp.DataType.Type.FLOAT: "FLOAT",
    exp.DataType.Type.DOUBLE: "DOUBLE",
    exp.DataType.Type.DATE: "DATE",
    exp.DataType.Type.DECIMAL: "DECIMAL",
    exp.DataType.Type.TIMESTAMP: "TIMESTAMP",
    exp.DataType.Type.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
    exp.DataType.Type.ARRAY: "ARRAY",
}
_DEFAULT_SIZES = {"DECIMAL": (10, 0), "TIMESTAMP": (6, 0), "TIMESTAMP_LTZ": (6, 0)}

BOOLEAN = FlinkType("BOOLEAN")
INT = FlinkType("INT")
BIGINT = FlinkType("BIGINT")
DOUBLE = FlinkType("DOUBLE")
STRING = FlinkType("STRING")
DATE = FlinkType("DATE")
NULL = FlinkType("NULL")
INTERVAL = FlinkType("INTERVAL")
WINDOW_TIME = FlinkType("TIMESTAMP", 3)


def type_of(node: exp.Expr) -> FlinkType:
    """The type that a column definition or a cast names.

    Raises:
        SqlNotSupportedError: ROW, MAP, VARCHAR(n), BYTES and others are not there yet.
    """
    name = _NAMES.get(node.this) if isinstance(node, exp.DataType) else None
    if name is None:
        raise SqlNotSupportedError(f"type {node.sql()} is not supported", clause="type")
    if name == "ARRAY":
        if len(node.expressions) != 1:
            raise SqlNotSupportedError("ARRAY needs an element type", clause="type")
        return FlinkType("ARRAY", element=type_of(node.expressions[0]))
    sizes = tuple(int(size.this.this) for size in node.expressions)
    if not sizes:
        sizes = _DEFAULT_SIZES.get(name, ())
    elif name not in _DEFAULT_SIZES:
        raise SqlNotSupportedError(f"type {node.sql()} is not supported", clause="type")
    precision, scale = (*sizes, 0, 0)[:2]
    limit = MAX_DECIMAL_PRECISION if name == "DECIMAL" else 9
    if precision > limit or scale > precision:
        raise SqlNotSupportedError(f"type {node.sql()} is out of range", clause="type")
    return FlinkType(name, precision, scale)


def as_decimal(kind: FlinkType) -> FlinkType:
    """The decimal that holds every value of an integer or decimal type."""
    return kind if kind.kind == "DECIMAL" else FlinkType("DECIMAL", INTEGERS[kind.kind])


def common_type(left: FlinkType, right: FlinkType, what: str) -> FlinkType:
    """The type that both are cast to by comparisons, CASE, COALESCE and the like.

    Raises:
        SqlNotSupportedError: Flink would refuse it, or cast text implicitly.
    """
    if left == right or right.kind == "NULL":
        return left
    if left.kind == "NULL":
        return right
    if left.is_numeric and right.is_numeric:
        return _common_number(left, right)
    if left.kind == right.kind and left.is_time:
        return max(left, right, key=lambda kind: kind.precision)
    raise SqlNotSupportedError(
        f"{what} of {left} and {right} is not supported; write a CAST", clause=what
    )


def _common_number(left: FlinkType, right: FlinkType) -> FlinkType:
    if left.kind in APPROXIMATE or right.kind in APPROXIMATE:
        return left if left.kind == right.kind else DOUBLE
    if left.is_integer and right.is_integer:
        return max(left, right, key=lambda kind: INTEGERS[kind.kind])
    one, two = as_decimal(left), as_decimal(right)
    scale = max(one.scale, two.scale)
    whole = max(one.precision - one.scale, two.precision - two.scale)
    if whole + scale > MAX_DECIMAL_PRECISION:
        raise SqlNotSupportedError(
            f"no decimal holds both {left} and {right}; write a CAST", clause="DECIMAL"
        )
    return FlinkType("DECIMAL", whole + scale, scale)


def _unit(precision: int) -> str:
    if precision == 0:
        return "s"
    return "ms" if precision <= 3 else "us" if precision <= 6 else "ns"
