"""Where window operators keep what they have merged: state backends.

`memory` keeps all of it in the process. `disk` keeps the latest there, up to a number of bytes, and
the rest in runs: files in a directory of the process, written once and never changed. Rows of a run
are in the order of their window and of their part, a hash of the key, so that what is due is read
part by part, merged with the same part of all other runs, and given on before the next is read.
How much memory firing takes is therefore independent of how much fires, and what is in no window
that is open any more is dropped with its file.

Runs that a checkpoint needs are linked or copied to its storage once, the next checkpoint names
them again: a checkpoint writes what is new. A state is the same for both backends, tables and runs,
so that a job may go on with the other one.

Why not a key-value store with a merge operator, as RocksDB in Flink: it takes a call and a copy for
each row, and Arrow merges a hundred thousand in one. Why not a database with aggregation out of
core: of those that are embedded none bounds the memory of exact distinct counts and percentiles.

May import `aggregates`, `key_groups`, `windows`, `storage` of this package, `model`, `settings` and
`errors`.
"""
