"""Unit ids and SQL names.

A unit id is `schema.table`, each part written as SQL would need it: bare when it is lower case and
plain, double-quoted otherwise (`public.orders`, `"Sales 2024"."line.items"`). There is exactly one
spelling per table, so ids can be compared as strings.
"""

from __future__ import annotations

import re

from psycopg2 import sql

from matih_ray.errors import UnknownUnitError
from matih_ray.model.ids import UnitId

_BARE = re.compile(r"[a-z_][a-z0-9_$]*")
_PART = r'"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*'
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
            'that has capitals, dots or spaces, as in "Sales 2024".orders',
            unit_id=unit_id,
        )
    schema, table = _read(match[1]), _read(match[2])
    canonical = unit_id_of(schema, table)
    if canonical != unit_id:
        raise UnknownUnitError(f"{unit_id!r} is spelled {canonical}", unit_id=unit_id)
    return schema, table


def qualified(unit_id: str) -> sql.Composable:
    """The unit's table as an SQL identifier."""
    return sql.Identifier(*schema_and_table(unit_id))


def _write(name: str) -> str:
    if _BARE.fullmatch(name):
        return name
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _read(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part
