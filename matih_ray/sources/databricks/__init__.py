"""Databricks SQL (`jdbc.databricks`): tables and views of a catalog, as Arrow from a warehouse.

Tested against a stand-in of our own that the vendor's client talks to; no Databricks was there. The
literals, casts and JSON functions of `dialect` were tried by hand on Apache Spark 4.3.

May import `sources.sql`, `sources.http` (for OAuth), `sources.base`, what guards and probes hosts,
`model`, `errors` and the client.

    source, config      the endpoint
    session, catalog    the client: its settings, and what there is
    login               a token, or client credentials
    dialect             names, literals and the table of types
    decoding            the client's Arrow into the declared schema
    failures            the client's errors as ours

Why not cloud fetch, which is faster for large results: it downloads them from addresses that the
answer names, anywhere in a cloud's storage, which no host policy could know beforehand.
"""

from matih_ray.sources.databricks.source import DatabricksSource

__all__ = ["DatabricksSource"]
