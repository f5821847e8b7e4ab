"""The peer: dlt loads one PostgreSQL table into an Iceberg table, as its own documentation says to.

Runs in `.bench-venv` and imports nothing of ours: `python peer_dlt.py URL TABLE DIRECTORY`.
Prints one JSON line with the rows that are in the table afterwards.
"""

import json
import sys
from pathlib import Path

import dlt
from dlt.destinations import filesystem
from dlt.sources.sql_database import sql_table


def main(url: str, table: str, directory: str) -> None:
    """Load `table` from `url` into an Iceberg table below `directory`."""
    home = Path(directory).resolve()
    resource = sql_table(
        credentials=url,
        table=table,
        backend="connectorx",
        backend_kwargs={"return_type": "arrow_stream", "batch_size": 100_000},
    )
    resource.apply_hints(table_format="iceberg", write_disposition="replace")
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        destination=filesystem(bucket_url=(home / "bucket").as_uri()),
        dataset_name="peer",
        pipelines_dir=str(home / "pipelines"),
    )
    pipeline.run(resource).raise_on_failed_jobs()
    rows = pipeline.last_trace.last_normalize_info.row_counts[table]
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
