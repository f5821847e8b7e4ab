"""The SQL front end: Flink SQL text in, logical plans out. Pure: no files, no Ray, no sockets.

`dialect` teaches sqlglot what it lacks of Flink's grammar, `script` turns a file into statements
(variables filled in, options overridden), `types` and `expressions` give them Flink's meaning over
Arrow arrays, `query` plans. Why not DuckDB for the expressions, although it is fast: its division,
casts, overflows, `GREATEST` and decimal types are not Flink's, and a rewrite of each into
something that is would be longer than calling Arrow's functions directly.
"""

from matih_ray.streaming.sql import functions

__all__ = ["functions"]
