"""Where to cut: values of a field between which there are about as many documents each.

The index is walked: find the value that lies so many entries after the last one. That is exact,
the same again while nothing changes, and right for any distribution and any collation. For `_id` it
reads index entries only, a small share of what reading the documents costs. Where a collection has
so many that even this would take minutes, a random sample is sorted by the server instead; such a
plan is as good but not repeatable.
"""

from __future__ import annotations

from typing import Any

from matih_ray.sources.mongodb.session import MongoCollection
from matih_ray.sources.mongodb.slices import ID, Bracket, id_query, range_query
from matih_ray.sources.mongodb.types import extended_json

# About 20 s of walking an index that is in memory, at one to two million entries a second.
MAX_WALKED_DOCUMENTS = 30_000_000
# With m sampled values a slice its size is off by about 1/sqrt(m): 10 %.
SAMPLES_PER_SLICE = 100
# The server sorts the sample within its 100 MB of memory for that: up to 1 KB for a value.
MAX_SAMPLES = 100_000


def walked_bounds(
    collection: MongoCollection,
    field: str,
    bracket: Bracket,
    target_rows: int,
    max_bounds: int,
    lower: str | None = None,
    upper: str | None = None,
) -> list[str]:
    """Ascending bounds after every `target_rows` documents of `lower < field <= upper`."""
    bounds: list[str] = []
    last = lower
    while len(bounds) < max_bounds:
        condition = range_query(field, bracket, last, upper)
        if field == ID and upper is None:
            condition = id_query(bracket, last)
        found = collection.find(condition, {ID: field == ID, field: True})
        with found.sort(field, 1).skip(target_rows - 1).limit(1) as cursor:
            document = next(cursor, None)
        if document is None:
            break
        last = extended_json(document[field])
        bounds.append(last)
    return bounds


def sampled_bounds(collection: MongoCollection, bracket: Bracket, slices: int) -> list[str]:
    """Ascending, distinct `_id`s that cut a bracket into about so many parts."""
    size = min(slices * SAMPLES_PER_SLICE, MAX_SAMPLES)
    # the sample comes first: after another stage the server would have to read everything
    steps: list[dict[str, Any]] = [
        {"$sample": {"size": size}},
        {"$match": range_query("_id", bracket)},
        {"$project": {"_id": True}},
        {"$sort": {"_id": 1}},
    ]
    with collection.aggregate(steps) as cursor:
        values = [extended_json(document["_id"]) for document in cursor]
    share = max(1, size // slices)
    return list(dict.fromkeys(values[share - 1 :: share]))


def greatest(
    collection: MongoCollection, field: str, bracket: Bracket, lower: str | None
) -> str | None:
    """The greatest value above `lower`; None if there is none."""
    document = collection.find_one(
        range_query(field, bracket, lower),
        {ID: field == ID, field: True},
        sort=[(field, -1)],
    )
    return None if document is None else extended_json(document[field])
