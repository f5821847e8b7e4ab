"""Timestamps of Flink's `json` format: their two standards, and columns of them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.streaming.sql.casts import parse_timestamps
from matih_ray.streaming.sql.types import FlinkType

FORMS = {
    ("SQL", "TIMESTAMP"): r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,9})?$",
    ("ISO-8601", "TIMESTAMP"): r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?$",
    ("SQL", "TIMESTAMP_LTZ"): r"^\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
    ("ISO-8601", "TIMESTAMP_LTZ"): r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
}


def parsed(column: pa.Array, kind: FlinkType, standard: str) -> pa.Array:
    """The timestamps of text in the standard's form; NULL is what has another, or is no date."""
    if _is_plain(column, kind, standard):
        try:
            return column.cast(kind.arrow)
        except pa.ArrowInvalid:
            pass  # one is no date, or no time of day
    matches = pc.match_substring_regex(column, FORMS[standard, kind.kind])
    text = pc.if_else(matches, column, pa.scalar(None, pa.string()))
    if kind.kind == "TIMESTAMP_LTZ":
        text = pc.utf8_rtrim(text, "Z")
    return parse_timestamps(text, kind, "^")


def _is_plain(column: pa.Array, kind: FlinkType, standard: str) -> bool:
    """Whether all of a column has one form, the standard's with no more digits than the type: what
    machines write, and told by looking at the bytes, ten times as fast as by a pattern."""
    if column.null_count or not len(column):
        return False
    _, offset_buffer, bytes_ = column.buffers()
    starts = np.frombuffer(offset_buffer, np.int32)[column.offset : column.offset + len(column) + 1]
    width = int(starts[1] - starts[0])
    zone = "Z" if kind.kind == "TIMESTAMP_LTZ" else ""
    digits = width - len("0000-00-00 00:00:00.") - len(zone)
    if not (digits == -1 or 1 <= digits <= kind.precision) or np.any(np.diff(starts) != width):
        return False
    fraction = "." + "0" * digits if digits > 0 else ""
    between = " " if standard == "SQL" else "T"
    form = np.frombuffer(f"0000-00-00{between}00:00:00{fraction}{zone}".encode(), np.uint8)
    most = np.where(form == ord("0"), ord("9"), form)
    text = np.frombuffer(bytes_, np.uint8)[starts[0] : starts[-1]].reshape(-1, width)
    return bool(np.all((text >= form) & (text <= most)))
