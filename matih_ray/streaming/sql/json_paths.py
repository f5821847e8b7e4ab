"""Scalars at a path in columns of JSON documents, as Flink's JSON_VALUE finds them.

Not by `exact_json.parse`, whose rules are an ingestion's: of two equal names Flink takes the last,
and what is no JSON is NULL and no error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from matih_ray.errors import SqlNotSupportedError
from matih_ray.sources.documents.exact_json import no_constant, number
from matih_ray.streaming.sql.casts import encodable

_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|\['([^']*)'\]")
_DECODER = json.JSONDecoder(parse_float=number, parse_int=str, parse_constant=no_constant)


def json_path(node: exp.Expr) -> tuple[str | int, ...]:
    """The steps of a path such as `$.a[0].b`.

    Raises:
        SqlNotSupportedError: It has wildcards, filters or a mode.
    """
    text = node.name
    position, steps = 1, []
    while text.startswith("$") and position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            break
        steps.append(int(match[2]) if match[2] else match[1] or match[3])
        position = match.end()
    if not text.startswith("$") or position < len(text):
        raise SqlNotSupportedError(f"JSON path {text!r} is not supported", clause="JSON_VALUE")
    return tuple(steps)


def scalars_at(steps: tuple[str | int, ...]) -> Callable[[pa.Array], pa.Array]:
    """What finds the scalars at a path in documents, as text."""
    read = _reader_of(steps)

    def one_by_one(documents: pa.Array) -> pa.Array:
        values = [None if text is None else read(text) for text in documents.to_pylist()]
        if set(map(type, values)) <= {int, type(None)}:
            with suppress(OverflowError):
                return pa.array(values, pa.int64()).cast(pa.string())
        return pa.array([_scalar(value) for value in values], pa.string())

    if len(steps) == 1 and isinstance(steps[0], str):
        return partial(_at_name, steps[0], one_by_one)
    return one_by_one


def _at_name(
    name: str, one_by_one: Callable[[pa.Array], pa.Array], documents: pa.Array
) -> pa.Array:
    """The scalars of one name in objects: by the compiled reader, which takes documents of a line,
    and what it leaves one by one."""
    # numba is loaded by who looks into documents, not by who only plans
    from matih_ray.kernels.json_columns import JsonColumn, JsonReader, lines_of
    from matih_ray.kernels.json_lines import Kind

    reader = JsonReader([JsonColumn(name, Kind.SCALAR)])
    found = reader.read_each(lines_of(documents), len(documents))
    if found is None:
        return one_by_one(documents)
    (scalars,) = found.columns
    left = pc.and_(pa.array(found.left), documents.is_valid())
    if not pc.any(left).as_py():
        return scalars
    return pc.replace_with_mask(scalars, left, one_by_one(documents.filter(left)))


def _reader_of(steps: tuple[str | int, ...]) -> Callable[[str], Any]:
    """What finds the value at a path in a document.

    msgspec reads what is on the path and only looks over the rest, ten times as fast as Python's
    reader. That one has the last word on what the first refuses: lone surrogates, a path that leads
    through a scalar and then, under the same name, through an object.
    """
    if not steps or not all(isinstance(step, str) for step in steps):
        return lambda text: _slowly_at(text, steps)
    kind: Any = Any
    for step in reversed(steps):
        found = [("found", kind | None if kind is not Any else Any, None)]
        kind = msgspec.defstruct("Found", found, rename={"found": str(step)}, gc=False)
    read = msgspec.json.Decoder(kind, float_hook=number).decode
    at_end = attrgetter(".".join(["found"] * len(steps)))

    def find(text: str) -> Any:
        try:
            return at_end(read(text))
        except AttributeError:
            return None  # an object on the path is missing or null
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return _slowly_at(text, steps)

    return find


def _slowly_at(text: str, steps: tuple[str | int, ...]) -> Any:
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    for step in steps:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None or isinstance(value, dict | list) else encodable(str(value))
