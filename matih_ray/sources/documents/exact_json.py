"""JSON text and its values, exactly, whoever reads it: servers' answers, messages, lines. Pure.

Numbers are `int` or `Decimal` with the digits they were sent with, never floats: 0.1 and 1.10 have
no exact float. A name that is there twice, NaN and Infinity are no JSON, because each reader would
read something else.

msgspec reads several times as fast as Python's own reader, but takes the last of two equal names
in silence. So what it has read is written again and compared with the text: a value whose text
comes back was read whole. Text that was written otherwise (escapes that need not be, exponents) is
read by Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

# Whole numbers of longer texts are decimals: neither Python nor msgspec makes integers of them.
MAX_INTEGER_CHARS = 4300


def number(text: str) -> Decimal:
    """A number as it was written.

    Raises:
        ValueError: Its exponent is beyond those of decimals.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("an exponent beyond those of decimals") from None


_READER = msgspec.json.Decoder(float_hook=number)
_WRITER = msgspec.json.Encoder(decimal_format="number")


def parse(text: bytes) -> Any:
    """The value of JSON text.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        value = _READER.decode(text)
        written = _WRITER.encode(value)
        if written == text or written == msgspec.json.format(text, indent=-1):
            return value
    except (msgspec.MsgspecError, UnicodeError):
        pass  # not for us to say: there are numbers and escapes that only the other reader knows
    return _STRICT.decode(text.decode(json.detect_encoding(text), "surrogatepass"))


def json_text(value: Any) -> str:
    """A parsed value as compact JSON text, numbers with the digits they came with.

    Raises:
        RecursionError: It is nested too deeply.
    """
    try:
        return _WRITER.encode(value).decode()
    except (TypeError, UnicodeEncodeError, msgspec.MsgspecError):
        return _slow_text(value)


def _slow_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json_text(k)}:{json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value)  # a lone surrogate has no UTF-8 form, but an escape


def _whole(text: str) -> int | Decimal:
    return int(text) if len(text) <= MAX_INTEGER_CHARS else Decimal(text)


def no_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which Python's reader would take."""
    raise ValueError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


_STRICT = json.JSONDecoder(
    parse_float=number,
    parse_int=_whole,
    parse_constant=no_constant,
    object_pairs_hook=_object,
)
