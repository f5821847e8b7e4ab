"""Snowflake (`jdbc.snowflake`): tables and views into Arrow, in the service's own batches.

Tested against an emulator of its HTTP protocol, which lists no views; no Snowflake was there.
May import `sources.sql`, `sources.base`, `sources.host_policy`, `model`, `errors` and the driver.

    source, config      the endpoint
    session, catalog    the driver: its settings, and what there is
    dialect             names, literals and the table of types
    decoding            the driver's Arrow into the declared schema
    failures            the driver's errors as ours

Why not COPY INTO a stage, which is faster for large tables: it needs a right to write, which a
connector that reads cannot take for granted.
"""

from matih_ray.sources.snowflake.source import SnowflakeSource

__all__ = ["SnowflakeSource"]
