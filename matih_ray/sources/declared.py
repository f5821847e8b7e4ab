"""Units whose schema is declared in code: described, selected by a policy, and filled with rows.

For APIs whose objects are known; in `sources.documents` a sample tells the columns. Pure.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from matih_ray.errors import PlanError, SourceChangedError, UnknownUnitError, ValidationError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity
from matih_ray.sources.base import TARGET_BATCH_BYTES, IngestionContext
from matih_ray.sources.batching import joined, pieces
from matih_ray.sources.http.json_values import micros

Row = dict[str, Any]
# Rows that are Python objects at a time; they take several times their size there.
PIECE_ROWS = 500
# A stored text of ours is never larger; more is a bomb.
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
_NATIVE = {"string": "text", "int64": "integer", "bool": "boolean"}


def described(
    endpoint_id: EndpointId,
    unit_id: str,
    schema: pa.Schema,
    key: tuple[str, ...],
    cdm_model_id: str | None,
) -> EndpointUnitDescriptor:
    """The unit of a schema; `<namespace>.<name>` is its id."""
    namespace, _, name = unit_id.partition(".")
    return EndpointUnitDescriptor(
        endpoint_id=endpoint_id,
        unit_id=UnitId(unit_id),
        namespace=namespace,
        name=name,
        kind="objects",
        columns=tuple(_column(field) for field in schema),
        primary_key=key,
        cdm_model_id=cdm_model_id,
    )


def page_of(names: Iterable[str], context: IngestionContext) -> list[str]:
    """The names that a listing asks for, sorted; the pattern is a glob.

    Raises:
        ValidationError: The page's offset or limit is negative.
    """
    if context.offset < 0 or context.limit < 0:
        raise ValidationError("offset and limit must not be negative", field="offset, limit")
    wanted = sorted(names)
    if context.pattern is not None:
        wanted = [name for name in wanted if fnmatchcase(name, context.pattern)]
    return wanted[context.offset : context.offset + context.limit]


def schema_of(schemas: Mapping[str, pa.Schema], unit_id: str) -> pa.Schema:
    """The schema of a unit.

    Raises:
        UnknownUnitError: There is no such unit.
    """
    if unit_id not in schemas:
        raise UnknownUnitError(
            f"there is no unit {unit_id}; there is {', '.join(sorted(schemas))}",
            unit_id=str(unit_id),
        )
    return schemas[unit_id]


def selected_schema(
    schema: pa.Schema, unit: EndpointUnitDescriptor, policy: IngestionPolicy
) -> pa.Schema:
    """The columns that a policy asks for, in the unit's order.

    Raises:
        ValidationError: It names a column that is not there, leaves out one of the key, or asks
            for an encoding.
    """
    if policy.encodings:
        raise ValidationError(f"{unit.unit_id} has no other encodings", field="encodings")
    if policy.columns is None:
        return schema
    for name in policy.columns:
        if name not in schema.names:
            raise ValidationError(
                f"{unit.unit_id} has no column {name!r}; it has {', '.join(schema.names)}",
                field="columns",
                column=name,
            )
    for name in unit.primary_key:
        if name not in policy.columns:
            raise ValidationError(
                f"columns of {unit.unit_id} must include {name!r}, which is its key",
                field="columns",
                column=name,
            )
    return pa.schema([field for field in schema if field.name in policy.columns])


def check_described(schema: pa.Schema, unit: EndpointUnitDescriptor) -> None:
    """Refuse a unit that was described by another release.

    Raises:
        SourceChangedError: The catalog has other columns.
    """
    if [column.name for column in unit.columns] != schema.names:
        raise SourceChangedError(
            f"{unit.unit_id} was described with other columns; collect the catalog again",
            unit_id=unit.unit_id,
        )


def record_batches(
    schema: pa.Schema, rows: Iterable[Row], target_bytes: int = TARGET_BATCH_BYTES
) -> Iterator[pa.RecordBatch]:
    """Batches of rows; a column that a row lacks is NULL there, and one too many is left out."""
    batches = (
        pa.RecordBatch.from_pylist(piece, schema=schema) for piece in pieces(rows, PIECE_ROWS)
    )
    return joined(batches, target_bytes)


def at(value: Any, *names: str) -> Any:
    """What is at a path of names, None if a step is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text(value: Any, *names: str) -> str | None:
    """The text at a path; None if there is none."""
    found = at(value, *names)
    return None if found is None else str(found)


def whole(value: Any, *names: str) -> int | None:
    """The whole number at a path; None if there is none."""
    found = at(value, *names)
    return found if type(found) is int else None


def flag(value: Any, *names: str) -> bool | None:
    """The boolean at a path; None if there is none."""
    found = at(value, *names)
    return found if type(found) is bool else None


def instant(value: Any, *names: str) -> int | None:
    """The ISO 8601 time at a path as microseconds since 1970; None if there is none."""
    found = at(value, *names)
    if not isinstance(found, str):
        return None
    try:
        return micros(found)[0]
    except ValueError:
        raise SourceChangedError(
            f"{'.'.join(names)} is {found[:40]!r}, which is no time", column=".".join(names)
        ) from None


def packed(value: Any) -> str:
    """JSON in few characters: a checkpoint holds thousands of ids."""
    told = json.dumps(value, separators=(",", ":"))
    return base64.b85encode(zlib.compress(told.encode(), 9)).decode()


def unpacked(stored: Any) -> Any:
    """What was packed.

    Raises:
        PlanError: It was not packed by `packed`.
    """
    try:
        unzip = zlib.decompressobj()
        told = unzip.decompress(base64.b85decode(stored), MAX_UNPACKED_BYTES)
        return json.loads(told)
    except (ValueError, TypeError, zlib.error):
        raise PlanError(
            "the stored checkpoint of this unit is not one of this source; reset it"
        ) from None


def _column(field: pa.Field) -> ColumnDescriptor:
    fidelity, encoding = Fidelity.EXACT, None
    native = _NATIVE.get(str(field.type), "time")
    if native == "time":
        fidelity, encoding = Fidelity.ENCODED, "the instant as UTC; raw has it as it was sent"
    elif field.name == "raw":
        native, fidelity, encoding = "object", Fidelity.ENCODED, "JSON text"
    return ColumnDescriptor(
        name=field.name,
        native_type=native,
        arrow_type=str(field.type),
        nullable=field.nullable,
        fidelity=fidelity,
        encoding=encoding,
    )
