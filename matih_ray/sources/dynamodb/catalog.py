"""What a region holds: its tables, and the columns that a sample of each shows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from botocore.exceptions import ClientError

from matih_ray.errors import UnknownUnitError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.aws_failures import code_of
from matih_ray.sources.documents.columns import observed_columns
from matih_ray.sources.dynamodb.session import Item, Sessions
from matih_ray.sources.dynamodb.types import DIALECT, NUMBER, STRING

# Items that columns are made of: one page of a scan, which reads 1 MB at most and so costs at most
# 128 read units (256 consistently).
SAMPLE_ITEMS = 1000


def table_names(sessions: Sessions) -> list[str]:
    """All tables of the region, in order."""
    pages = sessions.client().get_paginator("list_tables").paginate()
    return sorted(name for page in pages for name in page["TableNames"])


def table_of(sessions: Sessions, unit_id: UnitId) -> dict[str, Any]:
    """The service's description of a table.

    Raises:
        UnknownUnitError: There is no such table.
    """
    try:
        table: dict[str, Any] = sessions.client().describe_table(TableName=unit_id)["Table"]
    except ClientError as error:
        # a name that no table can have is refused as such
        if code_of(error) not in ("ResourceNotFoundException", "ValidationException"):
            raise
        raise UnknownUnitError(
            f"no table {unit_id!r} in {sessions.address}", unit_id=unit_id
        ) from None
    return table


def described(
    sessions: Sessions, unit_id: UnitId, endpoint_id: EndpointId
) -> EndpointUnitDescriptor:
    """A table with its key, the columns of a sample, and the service's own estimates, which it
    brings up to date about every six hours."""
    table = table_of(sessions, unit_id)
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in _attributes(table)}
    keys = sorted(table["KeySchema"], key=lambda entry: entry["KeyType"] != "HASH")
    key = tuple(str(entry["AttributeName"]) for entry in keys)
    # attributes of index keys have a known type too, but an item may lack them
    declared = {name: types[name] for name in (*key, *types)}
    columns = observed_columns(DIALECT, _sample(sessions, unit_id), declared)
    return EndpointUnitDescriptor(
        endpoint_id=endpoint_id,
        unit_id=unit_id,
        namespace=sessions.config.region,
        name=unit_id,
        columns=columns,
        primary_key=key,
        cursor_candidates=tuple(c.name for c in columns if c.native_type in (NUMBER, STRING)),
        estimated_rows=int(table.get("ItemCount", 0)),
        estimated_bytes=int(table.get("TableSizeBytes", 0)),
    )


def _attributes(table: dict[str, Any]) -> list[dict[str, str]]:
    return list(table["AttributeDefinitions"])


def _sample(sessions: Sessions, unit_id: UnitId) -> Iterator[Item]:
    pages = sessions.scan(TableName=unit_id, Limit=SAMPLE_ITEMS)
    for page in islice(pages, 1):
        yield from page
