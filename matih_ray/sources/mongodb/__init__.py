"""MongoDB (`nosql.mongodb`): collections into Arrow, document by document, exactly.

Works with MongoDB 4.4 and newer: standalone servers, replica sets and sharded clusters. May import
`sources.base`, `sources.documents`, `model`, `errors` and pymongo; nothing else knows that pymongo
exists.

    source      the endpoint: what the rest of the package is put together for
    config, session, failures    connecting and errors
    types, catalog               what there is, and how each BSON type arrives
    slices, probing              a slice as data and as a query; where to cut
    full, incremental            plans of full and of incremental runs

MongoDB compares values of different types by a fixed order of types, but `$gt` and `$lte` see
values of one type bracket only. So a slice is a range within one bracket, and one further slice
holds every document of no such range; that the two are complements is what makes each document be
read exactly once, whatever its `_id` is.

Why pymongo and not pymongoarrow: the latter needs a schema without mixed types and turns a value of
another type into NULL without a word.
"""

from matih_ray.sources.mongodb.source import MongoSource

__all__ = ["MongoSource"]
