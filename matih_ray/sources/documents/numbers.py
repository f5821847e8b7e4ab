"""Exact numbers under a declared encoding: `decimal(p,s)` and `int64`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation

import pyarrow as pa

# Arrow's decimal128; DynamoDB's numbers have as many digits at most.
MAX_DECIMAL_DIGITS = 38
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")
_INT64 = range(-(2**63), 2**63)


def decimal_type(encoding: str) -> pa.DataType | None:
    """The Arrow type that `decimal(p,s)` names; None if it names none."""
    match = _DECIMAL.fullmatch(encoding)
    if match is None:
        return None
    precision, scale = int(match[1]), int(match[2])
    if not (1 <= precision <= MAX_DECIMAL_DIGITS and scale <= precision):
        return None
    return pa.decimal128(precision, scale)


def fitting_decimal(type_: pa.DataType) -> Callable[[Decimal], Decimal]:
    """A function that gives a number the type's scale.

    It raises `ValueError` for a number that has more digits than the type, or is not finite.
    """
    step = Decimal(1).scaleb(-type_.scale)
    context = Context(prec=type_.precision, traps=[Inexact, InvalidOperation])

    def fit(number: Decimal) -> Decimal:
        if not number.is_finite():
            raise ValueError("not finite")
        try:
            return number.quantize(step, context=context)
        except (Inexact, InvalidOperation):
            raise ValueError("too many digits") from None

    return fit


def whole(number: Decimal) -> int:
    """The number as a 64-bit integer.

    Raises:
        ValueError: It has a fraction, or is too large.
    """
    if not number.is_finite() or number != number.to_integral_value():
        raise ValueError("not a whole number")
    if (value := int(number)) not in _INT64:
        raise ValueError("more than 64 bits")
    return value
