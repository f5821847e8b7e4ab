"""What a database holds: its collections and views, and the columns that a sample of each shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from matih_ray.errors import UnknownUnitError
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.documents.columns import UNSEEN, observed_columns
from matih_ray.sources.mongodb.session import MongoCollection, MongoDocument, decoded
from matih_ray.sources.mongodb.slices import ID, bracket_of
from matih_ray.sources.mongodb.types import DIALECT

# Half from each end of the `_id` order, where the oldest and the newest documents are. Not
# `$sample`: the same collection must have the same columns whenever it is looked at.
SAMPLE_DOCUMENTS = 1000
# Of large documents the sample is smaller; 16 MB is one document of the largest size.
SAMPLE_BYTES = 16 * 1024 * 1024
# Documents in one answer while sampling, so that few of large ones come for nothing.
SAMPLE_FETCH_DOCUMENTS = 50

COLLECTION = "collection"
_INTERNAL = "system."  # views' definitions, buckets of time series


@dataclass(frozen=True)
class Listed:
    """One collection (`kind` is the server's word: `collection`, `view`, `timeseries`)."""

    name: str
    kind: str


def listed_collections(database: Database[MongoDocument]) -> list[Listed]:
    """All collections that the user may see, ordered by name."""
    found = database.list_collections(authorizedCollections=True, nameOnly=True)
    kinds = {str(entry["name"]): str(entry.get("type", COLLECTION)) for entry in found}
    return [
        Listed(name, kind) for name, kind in sorted(kinds.items()) if not name.startswith(_INTERNAL)
    ]


def listed_collection(database: Database[MongoDocument], unit_id: UnitId) -> Listed:
    """The collection of a unit.

    Raises:
        UnknownUnitError: There is none, or the user may not see it.
    """
    for found in listed_collections(database):
        if unit_id == f"{database.name}.{found.name}":
            return found
    raise UnknownUnitError(
        f"no collection {unit_id!r}, or the user may not see it", unit_id=unit_id
    )


def described(
    database: Database[MongoDocument], found: Listed, endpoint_id: EndpointId
) -> EndpointUnitDescriptor:
    """A collection with the columns of its sample, and its size by the server's statistics."""
    collection = database[found.name]
    columns = observed_columns(DIALECT, _sample(collection, found), {ID: UNSEEN})
    rows, size = _estimates(database, found)
    ordered = [column.name for column in columns if bracket_of(column.native_type) is not None]
    indexed = _leading_fields(collection) if found.kind == COLLECTION else frozenset()
    dated = {column.name for column in columns if column.native_type == "date"}
    return EndpointUnitDescriptor(
        endpoint_id=endpoint_id,
        unit_id=UnitId(f"{database.name}.{found.name}"),
        namespace=database.name,
        name=found.name,
        kind=found.kind,
        columns=columns,
        primary_key=(ID,),
        cursor_candidates=tuple(name for name in ordered if name in indexed | dated),
        estimated_rows=rows,
        estimated_bytes=size,
    )


def is_indexed(collection: MongoCollection, field: str) -> bool:
    """Whether an index that covers all documents begins with the field."""
    return field in _leading_fields(collection)


def _sample(collection: MongoCollection, found: Listed) -> Iterator[MongoDocument]:
    if found.kind != COLLECTION:  # no index on `_id`, so any documents will do
        return _bounded(collection, None, SAMPLE_DOCUMENTS, SAMPLE_BYTES)
    half = SAMPLE_DOCUMENTS // 2, SAMPLE_BYTES // 2
    return chain(_bounded(collection, 1, *half), _bounded(collection, -1, *half))


def _bounded(
    collection: MongoCollection, direction: int | None, documents: int, size: int
) -> Iterator[MongoDocument]:
    """Documents from one end until either limit is reached; at least one if there is any."""
    cursor = collection.find_raw_batches(limit=documents, batch_size=SAMPLE_FETCH_DOCUMENTS)
    if direction is not None:
        cursor = cursor.sort(ID, direction)
    with cursor:
        for batch in cursor:
            yield from decoded(batch)
            size -= len(batch)
            if size <= 0:
                return


def _estimates(database: Database[MongoDocument], found: Listed) -> tuple[int | None, int | None]:
    """Documents and bytes without reading any; None where the server does not say."""
    if found.kind != COLLECTION:
        return None, None
    try:
        stats: dict[str, Any] = database.command("collStats", found.name)
    except OperationFailure:  # the role does not include it; the count comes from metadata too
        return database[found.name].estimated_document_count(), None
    return int(stats.get("count", 0)), int(stats.get("size", 0))


def _leading_fields(collection: MongoCollection) -> frozenset[str]:
    indexes = collection.index_information().values()
    return frozenset(
        str(index["key"][0][0])
        for index in indexes
        if "partialFilterExpression" not in index and not index.get("sparse")
    )
