"""Oracle Database (`jdbc.oracle`): tables and views into Arrow, in the driver's own batches.

Tested against a stand-in for the driver's connection, over DuckDB; of the driver itself, only its
failures to connect were seen, for no registry has an Oracle server.
May import `sources.sql`, `sources.base`, `sources.host_policy`, `model`, `errors` and the driver.

    source, config      the endpoint
    session, catalog    the driver: its settings, and what there is
    login               one connection, to a checked address, in bounded time
    dialect             names, literals and the table of types
    decoding            the driver's Arrow into the declared schema
    failures            the driver's errors as ours

Why python-oracledb in its thin mode and not Oracle's client libraries: it needs nothing but pip.
Why times are selected as text: the driver makes Python's of them, which end at microseconds and
begin in the year 1.
"""

from matih_ray.sources.oracle.source import OracleSource

__all__ = ["OracleSource"]
