"""Amazon Redshift (`jdbc.redshift`): tables into Arrow, through cursors of the server.

Tested against PostgreSQL, whose protocol and SQL it shares; there was no Redshift to test with.
What only Redshift has (SVV_ catalogs, SUPER, VARBYTE) follows its Database Developer Guide. May
import `sources.sql`, `sources.postgres` (login and errors are the same), `sources.base`, `model`,
`errors` and psycopg2.

    source, config      the endpoint
    session, catalog    the driver: its settings, cursors, and what there is
    dialect             names, literals and the table of types
    decoding            the server's text into Arrow

Why not the PostgreSQL source with another port: Redshift has no COPY to the client, no ctid, no
snapshots to share and no view of open transactions. Why not UNLOAD to S3, which is faster for large
tables: it needs a bucket and a role that both sides may use, which a connector cannot take for
granted.
"""

from matih_ray.sources.redshift.source import RedshiftSource

__all__ = ["RedshiftSource"]
