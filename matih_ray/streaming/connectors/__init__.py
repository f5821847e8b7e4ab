"""The tables of streaming jobs: where their rows come from and where results go.

A source is an iterator of Arrow batches of the columns that a query needs; decoding only those is
the largest gain there is over row-at-a-time processors. A sink takes batches and ends with
`close` or `abort`. Why not the ingestion sources: those cut a catalog's units into slices, while a
streaming table is declared by its DDL, with Flink's options and Flink's rules for bad rows.
"""
