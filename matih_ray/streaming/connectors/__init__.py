"""The tables of streaming jobs: where their rows come from and where results go.

`reader` is the seam of sources: partitions that are read on from positions, as Arrow batches of the
columns that a query needs; decoding only those is the largest gain there is over row-at-a-time
processors. `sinks` is the seam of targets: rows are written, then prepared as plain data that a
checkpoint holds, then committed, by whichever process. Why not the ingestion sources: those cut a
catalog's units into slices, while a streaming table is declared by its DDL, with Flink's options
and Flink's rules for bad rows.
"""
