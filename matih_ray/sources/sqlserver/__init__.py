"""Microsoft SQL Server and Azure SQL (`jdbc.sqlserver`): tables and views, in one streamed SELECT.

Tested against a stand-in of our own that speaks TDS 7.4; there was no SQL Server to test with.
May import `sources.sql`, `sources.base`, `sources.host_policy`, `model`, `errors` and the driver.

    source, config      the endpoint
    session, catalog    the driver: its settings, and what there is
    channel             what the driver talks through: checked addresses, TLS, redirections
    dialect             names, literals and the table of types
    decoding            the driver's values into Arrow
    failures            the driver's errors as ours

Why python-tds, which decodes in Python, and not ODBC: it needs nothing but pip. Why not its TLS: it
looks at a certificate's names through functions that pyOpenSSL has dropped, trusts no system
certificates, and goes on without TLS where it is redirected.
"""

from matih_ray.sources.sqlserver.source import SqlServerSource

__all__ = ["SqlServerSource"]
