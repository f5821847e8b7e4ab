"""Unit ids.

A unit id is `schema.table`, each part bare when it is plain and in double quotes otherwise
(`PUBLIC.ORDERS`, `"sales 2024"."line.items"`), whatever quotes the vendor's SQL needs. There is
exactly one spelling per table, so ids can be compared as strings.
"""

from __future__ import annotations

import re

from matih_ray.errors import UnknownUnitError
from matih_ray.model.ids import UnitId

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_PART = r'"(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*'
_UNIT_ID = re.compile(rf"({_PART})\.({_PART})")


def unit_id_of(schema: str, table: str) -> UnitId:
    """The unit id of a table."""
    return UnitId(f"{_write(schema)}.{_write(table)}")


def schema_and_table(unit_id: str) -> tuple[str, str]:
    """The two names in a unit id.

    Raises:
        UnknownUnitError: The text is not the spelling that `unit_id_of` gives.
    """
    match = _UNIT_ID.fullmatch(unit_id)
    if match is None:
        raise UnknownUnitError(
            f"{unit_id!r} is not a unit id; write schema.table, with double quotes around a part "
            'that has dots, spaces or other signs, as in "sales 2024".orders',
            unit_id=unit_id,
        )
    schema, table = _read(match[1]), _read(match[2])
    canonical = unit_id_of(schema, table)
    if canonical != unit_id:
        raise UnknownUnitError(f"{unit_id!r} is spelled {canonical}", unit_id=unit_id)
    return schema, table


def _write(name: str) -> str:
    if _BARE.fullmatch(name):
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _read(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
