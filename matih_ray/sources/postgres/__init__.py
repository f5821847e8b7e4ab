"""PostgreSQL (`jdbc.postgres`): tables into Arrow, exactly, at the speed of COPY.

Works with PostgreSQL 11 and newer, primary or standby. May import `sources.base`, `model`,
`errors`, `kernels` and psycopg2; nothing else knows that psycopg2 exists.

    source      the endpoint: what the rest of the package is put together for
    config, session, failures       connecting, settings of a session, errors
    names, catalog, types, columns  what there is, and how each type arrives (the table of types)
    sampling, full                  plans of full runs
    cursor_scan, incremental, late_commits   plans of incremental runs
    slices, snapshot                a slice as data and as SQL; plans that need one snapshot
    copying, decoding, exact_values rows: COPY text into Arrow
    socket_copy, copy_kernels       the same where much is read: past libpq, by compiled loops
    changes             a table's changes as they happen, for streaming jobs
    change_runs         the same in runs: the log from one position to another

Why psycopg2 and not psycopg 3, ADBC or connectorx: its `copy_expert` feeds a C buffer and costs
half of psycopg 3's row iteration; ADBC delivers numerics as strings and connectorx as
decimal(38,10); and it speaks the replication protocol. Why one driver: planning and reading then
agree on every setting that text output depends on.
"""

from matih_ray.sources.postgres.source import PostgresSource

__all__ = ["PostgresSource"]
