"""Cells of the REST API into Arrow, exactly. Pure.

A cell is `{"v": value}`: a text, None, a list of cells for an ARRAY, or `{"f": [cell, …]}` for
a STRUCT (https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from matih_ray.errors import UnrepresentableValueError

# A row or a STRUCT as the API writes it: {"f": [{"v": …}, …]}.
RawRow = Mapping[str, Any]


def record_batch(rows: Sequence[RawRow], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as one batch; values are matched to fields by their position.

    Raises:
        UnrepresentableValueError: A value has no exact form; names the column.
    """
    columns = [
        _column([row["f"][position]["v"] for row in rows], field)
        for position, field in enumerate(schema)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    try:
        return _array(values, field.type)
    except (pa.ArrowInvalid, binascii.Error):
        raise UnrepresentableValueError(
            f"column {field.name!r} holds a value that {field.type} cannot; "
            f'set policy.encodings={{"{field.name}": "text"}}',
            column=field.name,
        ) from None


def _array(values: list[Any], arrow: pa.DataType) -> pa.Array:
    if pa.types.is_list(arrow):
        return _lists(values, arrow)
    if pa.types.is_struct(arrow):
        return _structs(values, arrow)
    if pa.types.is_binary(arrow):
        decoded = [None if t is None else base64.b64decode(t, validate=True) for t in values]
        return pa.array(decoded, arrow)
    return _scalars(pa.array(values, pa.string()), arrow)


def _lists(values: list[Any], arrow: pa.ListType) -> pa.Array:
    # NULL is read as an empty array, which is what BigQuery itself makes of it when it is stored
    lengths = [0 if cells is None else len(cells) for cells in values]
    inner = [cell["v"] for cells in values if cells is not None for cell in cells]
    offsets = pa.array(chain([0], accumulate(lengths)), pa.int32())
    return pa.ListArray.from_arrays(offsets, _array(inner, arrow.value_type), type=arrow)


def _structs(values: list[Any], arrow: pa.StructType) -> pa.Array:
    fields = [arrow.field(position) for position in range(arrow.num_fields)]
    children = [
        _array([None if v is None else v["f"][position]["v"] for v in values], field.type)
        for position, field in enumerate(fields)
    ]
    missing = pa.array([value is None for value in values], pa.bool_())
    return pa.StructArray.from_arrays(children, fields=fields, mask=missing)


def _scalars(texts: pa.StringArray, arrow: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(arrow):
        return pc.equal(texts, "true")
    if pa.types.is_timestamp(arrow) and arrow.tz is not None:
        return pc.cast(texts, pa.int64()).view(arrow)  # microseconds since 1970
    if pa.types.is_time(arrow):  # Arrow reads times of day as part of a timestamp only
        of_1970 = pc.binary_join_element_wise("1970-01-01T", texts, "")
        return pc.cast(of_1970, pa.timestamp("us")).cast(pa.int64()).view(arrow)
    return pc.cast(texts, arrow)
