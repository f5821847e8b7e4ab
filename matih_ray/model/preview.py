"""A few rows of a unit, as people look at them."""

from __future__ import annotations

from matih_ray.model.value import JsonValue, Value

# Longer texts are cut, with an ellipsis: a hundred documents must not become an answer of 100 MB.
MAX_TEXT_CHARS = 2000


class PreviewColumn(Value):
    """A column of a preview and the Arrow type it arrives in."""

    name: str
    arrow_type: str


class Preview(Value):
    """Rows as lists of values in the order of `columns`.

    Decimals, dates and times are text, bytes are base64, numbers that JSON has not are their names;
    texts over `MAX_TEXT_CHARS` characters are cut.
    """

    columns: tuple[PreviewColumn, ...]
    rows: tuple[tuple[JsonValue, ...], ...]
