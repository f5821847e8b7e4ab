"""Files in object stores (S3, Azure Blob Storage, Google Cloud Storage): Parquet, CSV and
newline-delimited JSON into Arrow, exactly.

May import `sources.base`, what stores share with other sources (`sources.aws_failures`,
`sources.google_login`, `sources.guarded_requests`), `model`, `errors`, pyarrow and, in the module
of each store alone, its vendor's client; nothing else knows that files are read.

    source      the endpoint, the same for every store
    store       what a store must do: list, look, read a range of a version
    s3, azure, gcs    the stores: keys, clients and errors
    config      what a connector says: prefix, datasets, their formats and declared types
    listing     the datasets that files make
    types       which Arrow type a column has, and its spelling in a unit
    inference   types of text: exact, from a sample, text when in doubt
    tabular, json_lines, formats    rows of one file as record batches
    catalog     a dataset as a unit, from a bounded sample of its files
    slices, incremental    groups of files as data, and plans of new files by time

Why Arrow's Parquet reader, but not its file systems, dataset or JSON readers: the first know no
versions of a file and report errors as text; the others guess types per block, read decimal numbers
as binary ones and fill what is missing, and none of that is said. A store is imported by its own
module, so that its client is needed only where it is used.
"""
