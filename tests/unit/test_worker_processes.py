"""What a worker process does to itself, seen in processes of their own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from matih_ray.execution.worker import leave_pandas
leave_pandas()
import pyarrow as pa
import matih_ray.sinks.iceberg, matih_ray.sources.postgres
assert pa.array([1, None]).null_count == 1
assert "pandas" not in sys.modules
assert pa.table({"a": [1]}).to_pandas().a[0] == 1
assert "pandas" in sys.modules
import pandas
assert pa.array(pandas.Series([1])).to_pylist() == [1]
"""


def test_pandas_is_loaded_only_for_who_calls_for_it():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)
