"""Files in object stores (`files.s3`): Parquet, CSV and newline-delimited JSON into Arrow, exactly.

May import `sources.base`, `model`, `errors` and pyarrow; nothing else knows that files are read.

    source      the endpoint, the same for every store; `s3` adds a store's keys and its errors
    config      what a connector says: prefix, datasets, their formats and declared types
    listing     files of a store, and the datasets that they make
    types       which Arrow type a column has, and its spelling in a unit
    inference   types of text: exact, from a sample, text when in doubt
    tabular, json_lines, formats    rows of one file as record batches
    catalog     a dataset as a unit, from a bounded sample of its files
    slices, incremental    groups of files as data, and plans of new files by time

Why pyarrow's file systems and Parquet, but not its dataset or JSON readers: these guess types per
block, read decimal numbers as binary ones and fill what is missing, and none of that is said.
"""

from matih_ray.sources.files.s3 import S3Source

__all__ = ["S3Source"]
