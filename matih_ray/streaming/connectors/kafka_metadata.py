"""Metadata columns of the `kafka` connector: what a message has beside its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME

from matih_ray.streaming.connectors.reader import MetadataColumn
from matih_ray.streaming.sql.casts import cast_function
from matih_ray.streaming.sql.types import BIGINT, INT, STRING, FlinkType

_TIMESTAMP_TYPES = {
    TIMESTAMP_CREATE_TIME: "CreateTime",
    TIMESTAMP_LOG_APPEND_TIME: "LogAppendTime",
}


def _time(message: Any) -> int | None:
    kind, time_ms = message.timestamp()
    return time_ms if kind in _TIMESTAMP_TYPES else None


_Read = Callable[[Any], object]
# Key, type and value of what Flink's connector has; its headers are a MAP, which is not there.
KEYS: dict[str, tuple[FlinkType, _Read]] = {
    "topic": (STRING, lambda message: message.topic()),
    "partition": (INT, lambda message: message.partition()),
    "offset": (BIGINT, lambda message: message.offset()),
    "timestamp": (FlinkType("TIMESTAMP_LTZ", 3), _time),
    "timestamp-type": (
        STRING,
        lambda message: _TIMESTAMP_TYPES.get(message.timestamp()[0], "NoTimestampType"),
    ),
    "leader-epoch": (INT, lambda message: message.leader_epoch()),
}


def envelope_columns(
    read: Mapping[str, Sequence[object]],
    numbers: Sequence[int] | None,
    columns: Mapping[str, MetadataColumn],
) -> dict[str, pa.Array]:
    """The metadata columns of rows, which are of the messages with these numbers, or of one message
    each; `read` is what each column's messages have."""
    found = {}
    for name, column in columns.items():
        kind, _ = KEYS[column.key]
        of = read[name] if numbers is None else [read[name][number] for number in numbers]
        found[name] = cast_function(kind, column.type)(pa.array(of, kind.arrow))
    return found
