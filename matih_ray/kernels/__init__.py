"""Loops over bytes, compiled to machine code: where text becomes columns.

    compiling       what compiles a function, and keeps the machine code on disk
    words           memory by addresses, a byte or eight at a time
    numbers, times  a number, and a timestamp, as text
    json_stretches  where a JSON value ends
    json_lines      which bytes of lines of JSON objects are the values of which columns
    texts, columns  those values as the buffers of columns
    gathering       from places to what is there: texts, and doubles of many digits
    json_columns    lines to Arrow columns: what others call
    copy_rows       the values of rows of PostgreSQL's COPY text
    copy_columns    such rows to Arrow columns: what others call
    copy_messages   those rows out of the messages of its protocol

May import numba, numpy and pyarrow, nothing of ours. Whoever calls knows what to do with a line
that a kernel left alone: kernels are for what is common, not for what is odd.

Why not Arrow's JSON reader: it takes 1.8 us for an event of 390 bytes of which nine of fourteen
fields are wanted, and was two thirds of all that a streaming job does. Nor Polars or DataFusion,
which take half of that, nor DuckDB, which takes less and rounds numbers. Arrow's CSV reader is
good, and takes twice as long as these for COPY text, which has neither quotes nor blanks. Why numba
and not C or Rust: there is nothing to build, on no platform, and the loops are read, checked and
tested as all else. What it costs is half a second and 70 MB of each process that decodes, so these
modules are imported where they are first needed; and a second, once a machine, to compile.
"""

# Blocks have these after them. No text that a kernel goes through has a NUL, so each loop ends
# there; and whoever looks at a whole word, or at a whole date of ten bytes, may begin at the end.
PADDING = bytes(16)
