"""The sink `iceberg`: rows become Parquet files of an Iceberg table, visible commit by commit.

Many writers, one committer: slice writers (in sink actors) write data files and describe them in
receipts; the planner commits receipts in one snapshot together with a marker, which lives in the
snapshot's summary and, because summaries vanish when snapshots expire, in a table property. A
marker commit asserts the heads of main and of the stream's load branch, and always moves one of
them, so markers form a chain that two owners cannot both extend (`fencing`, `commit`).

Why not `Table.append` of PyIceberg: it converts and buffers whole tables, repeats a commit without
looking for the marker, and has no overwrite that readers see all at once. Its catalogs, file IO,
schemas, transforms and metadata writers are used; nothing here knows a catalog's protocol.

A run with `finalize` gathers its rows on the load branch and shows them at its end, if they pass an
audit (`audited`, `audit`).

A merge (`merge_plan`, `merge_work`, `merge_keys`) rewrites the files that hold changed rows, on any
processes that it is lent (`sinks.base.Workforce`), and commits like everything else.

May import `sinks.base`, `sinks.fencing`, `sources.base` (for `EndpointSpec`), `settings`, `model`
and `errors`.

Files are not synced to disk one by one: after a power failure (not a crash of a process) a local
warehouse may lack files that its catalog names; object storage has no such window.
"""

from matih_ray.sinks.iceberg.sink import IcebergSink

__all__ = ["IcebergSink"]
