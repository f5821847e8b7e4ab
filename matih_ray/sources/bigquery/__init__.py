"""Google BigQuery (`warehouse.bigquery`): tables and views into Arrow, through Google's client.

Tested against an emulator; no BigQuery was there. Every cell of a page of its REST API is text, and
goes from that text to Arrow: the client's own conversion would lose intervals and ask for pandas.
May import `sources.sql`, `sources.base`, `sources.batching`, `sources.google_login`, `model`,
`errors` and the client.

    source, config      the endpoint
    session, http       the client, and how long its requests may take
    catalog             what there is
    dialect             names and literals
    types               how each type arrives
    decoding            cells into Arrow
    failures            the client's errors as ours

Why not the Storage Read API, which is faster for large tables: it cannot read views, it needs a
right of its own, and what it reads is a snapshot of a table without the SQL that cuts it here.
"""

from matih_ray.sources.bigquery.source import BigQuerySource

__all__ = ["BigQuerySource"]
