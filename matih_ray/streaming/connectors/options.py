"""Reading the options of a table."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError
from matih_ray.streaming.sql.script import CreateTable

_DURATION = re.compile(r"(\d+)\s*([a-zA-Z]*)")
_UNITS_MS = {
    "": 1, "ms": 1, "milli": 1, "millis": 1, "s": 1000, "sec": 1000, "secs": 1000,
    "second": 1000, "seconds": 1000, "m": 60_000, "min": 60_000, "minute": 60_000,
    "minutes": 60_000, "h": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
}  # fmt: skip


def table_name(table: CreateTable) -> str:
    """The table's name, for messages."""
    return ".".join(table.path)


def duration_ms(table: CreateTable, key: str, default: int) -> int:
    """A duration as Flink writes them: `500ms`, `30 s`, `5 min`; milliseconds without a unit.

    Raises:
        SqlInvalidError: It is none.
    """
    text = table.options.values.get(key)
    if text is None:
        return default
    found = _DURATION.fullmatch(text.strip())
    unit = _UNITS_MS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise SqlInvalidError(f"option {key!r} is a duration such as 30 s", option=key)
    return int(found[1]) * unit


def option(table: CreateTable, key: str, default: str | None = None) -> str:
    """An option of a table.

    Raises:
        SqlInvalidError: It is not there and has no default.
    """
    found = table.options.values.get(key, default)
    if found is None:
        raise SqlInvalidError(f"table {'.'.join(table.path)} needs option {key!r}", option=key)
    return found


def flag(table: CreateTable, key: str) -> bool:
    """A boolean option, false if it is not there."""
    text = option(table, key, "false").lower()
    if text not in ("true", "false"):
        raise SqlInvalidError(f"option {key!r} is true or false", option=key)
    return text == "true"


def local_path(table: CreateTable) -> Path:
    """The file or directory of a `filesystem` table."""
    text = option(table, "path")
    parts = urlsplit(text)
    if parts.scheme not in ("", "file"):
        raise SqlNotSupportedError(f"paths of {parts.scheme}: are not supported", clause="path")
    return Path(unquote(parts.path) if parts.scheme else text)
