"""Metadata columns: what connectors have in common about them."""

from __future__ import annotations

from collections.abc import Mapping

from matih_ray.errors import SqlNotSupportedError
from matih_ray.streaming.connectors.reader import MetadataColumn
from matih_ray.streaming.sql.casts import cast_function
from matih_ray.streaming.sql.types import FlinkType


def check_metadata(
    columns: Mapping[str, MetadataColumn], known: Mapping[str, FlinkType], connector: str
) -> None:
    """Refuse keys that a connector does not have, and types that they cannot be cast to.

    Raises:
        SqlNotSupportedError: A key or a type.
    """
    for name, column in columns.items():
        if column.key not in known:
            raise SqlNotSupportedError(
                f"column {name}: metadata {column.key!r} of {connector} is not supported; there "
                f"are {', '.join(known)}",
                clause="METADATA",
            )
        cast_function(known[column.key], column.type)
