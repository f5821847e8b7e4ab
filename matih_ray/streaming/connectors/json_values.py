"""Values of Flink's `json` format one by one, with Flink's own coercions: text to number, any value
to text.

For what the compiled reader leaves alone; it is a hundred times as slow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

import pyarrow as pa

from matih_ray.errors import SqlNotSupportedError
from matih_ray.streaming.sql.casts import encodable, parse_timestamps
from matih_ray.streaming.sql.types import BITS, FlinkType

Converter = Callable[[object], object]


_FORMS = {
    ("SQL", "TIMESTAMP"): r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,9})?$",
    ("ISO-8601", "TIMESTAMP"): r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?$",
    ("SQL", "TIMESTAMP_LTZ"): r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
    ("ISO-8601", "TIMESTAMP_LTZ"): r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
}


class BadValueError(ValueError):
    """A field does not have its type."""


def document(text: str) -> object:
    """A JSON value, numbers as they are written. What comes after it does not matter.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is too deep.
    """
    found, _ = _DECODER.raw_decode(text.lstrip())
    return found


def documents(text: bytes) -> list[object]:
    """The elements of a JSON array, or the one value that there is else.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is too deep.
    """
    found = document(text.decode())
    return found if isinstance(found, list) else [found]


def converted(value: object, convert: Converter) -> object:
    """A value as a field's type.

    Raises:
        BadValueError: It does not have it.
    """
    try:
        return None if value is None else convert(value)
    except (ValueError, InvalidOperation, pa.ArrowInvalid):
        raise BadValueError from None


class _Text(str):
    """A number of a document, as it was written."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_float=_Text, parse_int=_Text)


def converter(kind: FlinkType, timestamps: str) -> Converter:
    """What a JSON value that is not null becomes.

    Raises:
        SqlNotSupportedError: The type cannot be read from JSON here.
    """
    if kind.is_time:
        form = re.compile(_FORMS[timestamps, kind.kind])
        return lambda value: _time(value, kind, form)
    if kind.element is not None:
        inner = converter(kind.element, timestamps)
        return lambda value: _array(value, inner)
    if kind.is_integer:
        return lambda value: _integer(value, kind)
    if kind.kind == "DECIMAL":
        return lambda value: _decimal(value, kind)
    found = {"STRING": _text, "BOOLEAN": _boolean, "DOUBLE": _double, "FLOAT": _double}.get(
        kind.kind
    )
    if found is None:
        raise SqlNotSupportedError(f"{kind} in JSON is not supported", clause=kind.kind)
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return encodable(str(value) if isinstance(value, str) else _compact(value))


def _compact(value: object) -> str:
    """Compact JSON, numbers as they were written."""
    if isinstance(value, dict):
        parts = (
            f"{json.dumps(key, ensure_ascii=False)}:{_compact(one)}" for key, one in value.items()
        )
        return f"{{{','.join(parts)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_compact, value))}]"
    return str(value) if isinstance(value, _Text) else json.dumps(value, ensure_ascii=False)


def _boolean(value: object) -> bool:
    """True for `true` and text `true`, else false, as Flink has it."""
    return value is True or (isinstance(value, str) and str(value).strip().lower() == "true")


def _number(value: object) -> Decimal:
    if not isinstance(value, str):
        raise BadValueError("no number")
    found = Decimal(str(value).strip())
    if not found.is_finite() or "_" in value:
        raise BadValueError("no number")
    return found


def _integer(value: object, kind: FlinkType) -> int:
    """A number loses its fraction; text must be a whole number."""
    found = _number(value)
    if not isinstance(value, _Text) and not re.fullmatch(r"\s*[+-]?\d+\s*", str(value)):
        raise BadValueError("no whole number")
    whole, limit = int(found) if abs(found) < 1 << 64 else 1 << 64, 1 << (BITS[kind.kind] - 1)
    if not -limit <= whole < limit:
        raise BadValueError("out of range")
    return whole


def _double(value: object) -> float:
    if isinstance(value, str) and str(value).strip() in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return float(_number(value))


def _decimal(value: object, kind: FlinkType) -> Decimal | None:
    found = _number(value).quantize(Decimal(1).scaleb(-kind.scale), rounding=ROUND_HALF_UP)
    return found if len(found.as_tuple().digits) <= kind.precision else None


def _array(value: object, inner: Converter) -> list[object]:
    if not isinstance(value, list):
        raise BadValueError("no array")
    return [None if one is None else inner(one) for one in value]


def _time(value: object, kind: FlinkType, form: re.Pattern[str]) -> object:
    if isinstance(value, _Text) or not isinstance(value, str) or not form.match(value):
        raise BadValueError("no timestamp")
    found = parse_timestamps(pa.array([value.rstrip("Z")]), kind, "^")
    if found.null_count:
        raise BadValueError("no such day")
    return found[0]
