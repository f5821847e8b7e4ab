"""The client's Arrow into the declared schema. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError


def decoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The same rows under this schema; columns are matched by their position.

    Raises:
        UnrepresentableValueError: A value has no exact form; names the column.
    """
    columns = [_column(values, field) for values, field in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        # the session is in UTC, whatever its zone is called in the answer
        return pc.cast(values, field.type)
    except pa.ArrowInvalid:
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {field.type} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None
