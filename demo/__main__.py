"""`python -m demo` runs it, `python -m demo stop DIRECTORY` ends one that was left running.

SCALE is the TPC-H scale factor (0.1), KEEP=1 leaves everything running. The last line is JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

import psycopg2.extensions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from demo.readback import Comparison, compare
from demo.services import DATABASE, TENANT, Services, stop_left
from matih_ray.api.wire import RunBody
from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.run import RunState
from matih_ray.testing import tpch
from matih_ray.testing.client import ControlClient

ENDPOINT = "tpch"
POLL_S = 0.25
# Enough slices for a bar that moves.
SLICES = 12
MIN_SLICE_ROWS = 20_000

console = Console(highlight=False, soft_wrap=True)


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    if len(arguments) == 2 and arguments[0] == "stop":
        stop_left(Path(arguments[1]))
        return 0
    if arguments:
        console.print(__doc__)
        return 2
    signal.signal(signal.SIGTERM, _exit)
    return demo(
        float(os.environ.get("SCALE") or 0.1), keep=os.environ.get("KEEP", "") not in ("", "0")
    )


def demo(scale: float, *, keep: bool) -> int:
    """The whole story; returns the exit code."""
    started = time.monotonic()
    services = Services()
    tables: dict[str, Comparison] = {}
    ok = False
    try:
        ok = _story(services, scale, tables)
        if keep:
            console.print(*services.leave(), sep="\n")
    except Exception:  # noqa: BLE001 the outermost boundary: the result must stay the last line
        console.print_exception()
    finally:
        if not keep or not ok:
            with console.status("stopping what was started"):
                services.stop()
        seconds = round(time.monotonic() - started, 1)
        result = {
            "ok": ok,
            "tables": {name: dataclasses.asdict(found) for name, found in tables.items()},
            "seconds": seconds,
        }
        console.file.write(json.dumps(result) + "\n")
        console.file.flush()
    return 0 if ok else 1


def _story(services: Services, scale: float, tables: dict[str, Comparison]) -> bool:
    with _step("starting PostgreSQL"):
        services.postgres.start()
        services.postgres.create_database(DATABASE)
    connection = services.postgres.connect(DATABASE)
    rows: dict[str, int] = {}
    for table in tpch.TABLES:
        with _step(f"generating TPC-H {table.name}, scale {scale:g}"):
            rows[table.name] = tpch.load(connection, table, scale)
            tpch.track_changes(connection, table)
    with _step("starting Ray and the control API"):
        services.runtime.start()
    with services.client() as client, contextlib.closing(connection):
        endpoint_id = client.create_endpoint(ENDPOINT, services.postgres, DATABASE).endpoint_id
        found = client.collect(endpoint_id).units
        console.print(f"endpoint {ENDPOINT}: {found} tables in the catalog")
        _ingest(client, endpoint_id, RunMode.FULL, rows)
        same = _compare(services, connection, tables)
        touched = _touch(connection, max(1, rows["orders"] // 100))
        read = _ingest(client, endpoint_id, RunMode.INCREMENTAL, touched)
        return _compare(services, connection, tables) and same and read == touched


def _touch(connection: psycopg2.extensions.connection, count: int) -> dict[str, int]:
    """Insert, change and delete `count` orders each, with line items; returns touched rows."""
    changed = tpch.change_orders(connection, count)
    added = tpch.add_orders(connection, count)
    for name in added:
        console.print(f"{name}: {added[name]} rows inserted, {changed[name]} changed or deleted")
    return {name: changed[name] + added[name] for name in added}


def _ingest(
    client: ControlClient, endpoint_id: EndpointId, mode: RunMode, expected: Mapping[str, int]
) -> dict[str, int]:
    """Load all tables at the same time; returns the rows that each run wrote."""
    runs: dict[str, RunBody] = {}
    for table in tpch.TABLES:
        merging = mode is RunMode.INCREMENTAL
        policy = IngestionPolicy(
            run_mode=mode,
            write_mode=WriteMode.MERGE if merging else WriteMode.OVERWRITE,
            cursor_column=tpch.CHANGED_AT,
            delete_column=tpch.DELETED if merging else None,
            target_slice_rows=max(MIN_SLICE_ROWS, expected[table.name] // SLICES),
            commit_interval_s=1.0,
        )
        runs[table.name] = client.start_run(endpoint_id, UnitId(f"public.{table.name}"), policy)
    with Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bars = {
            name: progress.add_task(f"{mode.value} {name}", total=expected[name]) for name in runs
        }
        while not all(run.state.is_terminal for run in runs.values()):
            time.sleep(POLL_S)
            for name, run in runs.items():
                runs[name] = client.run(run.run_id)
                progress.update(bars[name], completed=runs[name].rows)
    for run in runs.values():
        if run.state is not RunState.COMPLETED:
            raise RuntimeError(f"{run.unit_id} is {run.state.value}: {run.error}")
    return {name: run.rows for name, run in runs.items()}


def _compare(
    services: Services,
    connection: psycopg2.extensions.connection,
    tables: dict[str, Comparison],
) -> bool:
    for table in tpch.TABLES:
        identifier = f"{TENANT}.{ENDPOINT}.public.{table.name}"
        with console.status(f"comparing {table.name} with its source"):
            left = f"NOT {tpch.DELETED}"
            found = compare(connection, table.name, left, services.runtime.home, identifier)
        tables[table.name] = found
        verdict = "equal" if found.checksum_match else "DIFFERENT"
        console.print(
            f"{table.name}: {found.source_rows} living rows in PostgreSQL, "
            f"{found.iceberg_rows} in Iceberg, contents {verdict}"
        )
    return all(found.checksum_match for found in tables.values())


@contextlib.contextmanager
def _step(text: str) -> Iterator[None]:
    started = time.monotonic()
    with console.status(text):
        yield
    console.print(f"{text} [dim]{time.monotonic() - started:.1f} s[/dim]")


def _exit(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
