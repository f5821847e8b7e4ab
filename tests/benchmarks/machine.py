"""What a number depends on: the machine, the versions, how busy it was; and the report's form."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from matih_ray.testing.devstack.postgres import PostgresServer

# A quarter of a machine's memory is the server's, as PostgreSQL's manual advises: lineitem at scale
# 1 and its index (1 GB) are then read from there by everybody, and nobody measures the disk.
SERVER_OPTIONS = {"shared_buffers": "4GB", "max_wal_size": "8GB", "autovacuum": "off"}


def number(name: str, default: float) -> float:
    """A number from the environment."""
    return float(os.environ.get(name) or default)


def describe(server: PostgresServer | None) -> dict[str, object]:
    """Facts about this machine and its software, and the server if one took part."""
    postgres = None if server is None else server.execute("SHOW server_version")[0][0]
    memory = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory.split()[1]) / 1024**2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": postgres,
        **{name: version(name) for name in ("ray", "pyarrow", "pyiceberg")},
        "load_before": os.getloadavg()[0],
    }


def say(text: str) -> None:
    """A line for people, at once."""
    print(text, flush=True)


def table(rows: Mapping[str, Mapping[str, object]]) -> None:
    """Rows of the same keys, aligned."""
    columns = list(next(iter(rows.values())))
    width = max(len(name) for name in rows)
    say(" " * width + "  " + "  ".join(columns))
    for name, row in rows.items():
        cells = (str(row[column]).rjust(len(column)) for column in columns)
        say(name.ljust(width) + "  " + "  ".join(cells))


def last_line(result: Mapping[str, object]) -> None:
    """The machine-readable result, on one line."""
    say(json.dumps(result))
