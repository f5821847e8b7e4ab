"""The sink `raw`: rows as they are in the source become Parquet files, visible commit by commit.

A table is a directory of *loads*, one for each commit that brought rows, and in them the policy's
partitions, both in Hive's form:

    <location>/<tenant>/<endpoint>/<namespace>/<table>/matih_load=0000000007/at_day=…/….parquet
    <location>/.matih/<tenant>/…/<table>/log/0000000007.json    the commits
    <location>/.matih/<tenant>/…/<table>/staged/…               not committed

Writers write staged files. A commit is one file of the log, created under the next number or not at
all (`storage`: the one thing asked of a filesystem beyond reading and writing), which carries the
stream's marker and names the files that become visible. Then they are moved to their load, and a
second file says that this is done; whoever comes next finishes what a dead committer has left
(`publishing`). So the log is the truth: who reads by it (`CommitLog.published`, or a registered
Iceberg table) sees each commit whole. Who lists the directory sees the same where a directory can
be renamed (local disks, HDFS): a load appears at once. On object stores its objects appear one
after the other, and while an overwrite is published, old and new loads are there together for a
moment.

Why not names with `_` for what is not committed, next to the data: common readers' globs take
everything that ends with `.parquet`. Why a log and not only the directories: a rename is no
compare-and-set, and neither fencing nor the answer to "did my commit happen?" can be had from it.
Why no merges and statistics: that is Iceberg's work, and the sink `iceberg` does it.

    config        where it is: an endpoint's configuration, or the operator's settings
    storage       a pyarrow filesystem, creating a file exclusively, foreign errors as ours
    log           entries, and what they add up to
    publishing    moving files to where readers look; finishing what others began
    files, existing, writer      Parquet files of a slice
    registration  an Iceberg table that shows the same files
    commit, sink  the contract of `sinks.base`

May import `sinks.base`, `sinks.fencing`, from `sinks.iceberg` what concerns names, partitions and
catalogs, `sources.base` (for `EndpointSpec`), `settings`, `model` and `errors`.
"""

from matih_ray.sinks.raw_files.sink import RawFilesSink

__all__ = ["RawFilesSink"]
