"""How each DynamoDB type arrives: the table of types, and plain JSON with exact numbers. Pure.

A value comes as the service sends it, `{"N": "1.5"}`. In JSON text strings, numbers, booleans,
null, maps and lists are themselves, and a number has DynamoDB's own digits. What JSON has no form
for is an object with one field that begins with `$`: `{"$binary": "base64"}`,
`{"$stringSet": […]}`, `{"$numberSet": […]}`, `{"$binarySet": […]}`; a map with such a name of its
own is wrapped as `{"$map": {…}}`. So every value can be told from every other.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from matih_ray.model.unit import Fidelity
from matih_ray.sources.documents.columns import Arrival, Dialect

NUMBER, STRING, BINARY = "N", "S", "B"
_JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def native_type(value: Mapping[str, Any]) -> str | None:
    """DynamoDB's letters for a value's type; None for null."""
    (name,) = value
    return None if name == "NULL" else name


def value_json(value: Mapping[str, Any]) -> str:
    """A value as JSON text."""
    ((name, content),) = value.items()
    return _WRITERS[name](content)


def attributes_json(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    """Attributes by name as a JSON object, names in order: DynamoDB's maps have no order."""
    fields = (f"{_string(name)}:{value_json(attributes[name])}" for name in sorted(attributes))
    return f"{{{','.join(fields)}}}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _number(text: str) -> str:
    return text if _JSON_NUMBER.fullmatch(text) else str(Decimal(text))


def _base64(content: bytes) -> str:
    return f'"{base64.b64encode(content).decode()}"'


def _list(items: Iterable[str]) -> str:
    return f"[{','.join(items)}]"


def _map(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    text = attributes_json(attributes)
    return f'{{"$map":{text}}}' if any(name.startswith("$") for name in attributes) else text


_WRITERS: Mapping[str, Callable[[Any], str]] = {
    STRING: _string,
    NUMBER: _number,
    "BOOL": lambda content: "true" if content else "false",
    "NULL": lambda _: "null",
    BINARY: lambda content: f'{{"$binary":{_base64(content)}}}',
    "M": _map,
    "L": lambda content: _list(map(value_json, content)),
    # sets have no order, and equal ones must have equal texts
    "SS": lambda content: f'{{"$stringSet":{_list(map(_string, sorted(content)))}}}',
    "NS": lambda content: f'{{"$numberSet":{_list(map(_number, sorted(content, key=Decimal)))}}}',
    "BS": lambda content: f'{{"$binarySet":{_list(map(_base64, sorted(content)))}}}',
}


def _content(name: str) -> Callable[[Mapping[str, Any]], Any]:
    def content(value: Mapping[str, Any]) -> Any:
        if name not in value:
            raise TypeError(name)
        return value[name]

    return content


def number(value: Mapping[str, Any]) -> Decimal:
    """A number, exactly."""
    return Decimal(_content(NUMBER)(value))


ARRIVALS: Mapping[str, Arrival] = {
    STRING: Arrival(pa.string(), _content(STRING)),
    NUMBER: Arrival(pa.string(), _content(NUMBER), Fidelity.ENCODED, "decimal digits"),
    BINARY: Arrival(pa.binary(), _content(BINARY)),
    "BOOL": Arrival(pa.bool_(), _content("BOOL")),
}

DIALECT = Dialect(
    native_type=native_type,
    arrivals=ARRIVALS,
    widened={},
    json_text=value_json,
    json_name="JSON, numbers in full; $binary and $…Set for what JSON lacks",
    number=number,
    numbers=frozenset({NUMBER}),
    fields_text=attributes_json,
)
