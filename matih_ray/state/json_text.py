"""JSON values as text, exact both ways: integers of any size, strings of any content."""

from __future__ import annotations

import json
from typing import cast

from matih_ray.errors import StateVersionError, ValidationError
from matih_ray.model.value import JsonValue

# A key-value store is for small values: a checkpoint is under a kilobyte, the cursors of ten
# thousand projects about one megabyte. Data of runs belongs elsewhere.
MAX_VALUE_BYTES = 4 * 1024 * 1024


def encode(value: JsonValue) -> str:
    """The value as ASCII text.

    Raises:
        ValidationError: Not JSON (NaN and infinity included), nested too deep, or larger than
            `MAX_VALUE_BYTES`. The message does not repeat the value.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise ValidationError(
            "only JSON can be stored: null, booleans, finite numbers, strings, lists and objects"
        ) from None
    if len(text) > MAX_VALUE_BYTES:
        raise ValidationError(
            f"a value of {len(text)} bytes is too large for the key-value store; "
            f"at most {MAX_VALUE_BYTES} are allowed",
            bytes=len(text),
        )
    return text


def decode(text: str) -> JsonValue:
    """The value of a stored text.

    Raises:
        StateVersionError: The text is not JSON, so something else wrote it.
    """
    try:
        return cast("JsonValue", json.loads(text))
    except ValueError:
        raise StateVersionError(
            "a stored value is not JSON; something else writes to this key-value store"
        ) from None
