"""Apache Flink in one process, to compare with: its SQL engine, over files and Kafka.

From Maven Central, as its own projects use it. One process answers many queries, since to start it
takes longer than any of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from matih_ray.testing.devstack.java import JavaLibrary, JavaServer

VERSION = "2.3.0"
# The newest there is; it is for Flink 2.2 and later.
KAFKA_VERSION = "5.0.0-2.2"
_FLINK = "org.apache.flink"
LIBRARY = JavaLibrary(
    _FLINK,
    "flink-sql-connector-kafka",
    KAFKA_VERSION,
    "flink.sha256",
    (
        f"{_FLINK}:flink-clients:{VERSION}",
        f"{_FLINK}:flink-connector-base:{VERSION}",
        f"{_FLINK}:flink-table-planner-loader:{VERSION}",
        f"{_FLINK}:flink-table-runtime:{VERSION}",
        f"{_FLINK}:flink-table-api-java-bridge:{VERSION}",
        f"{_FLINK}:flink-connector-files:{VERSION}",
        f"{_FLINK}:flink-json:{VERSION}",
        "org.slf4j:slf4j-nop:2.0.17",
    ),
)
# Kryo and the state backends look into the JDK's own classes, as Flink's start scripts let them.
_OPENED = tuple(
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in ("java.lang", "java.net", "java.io", "java.nio", "java.util", "java.time")
)
# A query over a small file takes a second; over millions of rows on a busy machine, minutes.
ANSWER_TIMEOUT_S = 300.0
Value = None | bool | int | float | str


class FlinkSql:
    """Queries of Flink.

    By default it works as one, with a watermark at every record, so that a file always gives the
    same rows.
    """

    def __init__(
        self, *, parallelism: int = 1, watermark_interval_ms: int = 0, heap_mb: int = 512
    ) -> None:
        # of two options for the heap, Java takes the last
        self._java = JavaServer("flink_sql.java", LIBRARY, *_OPENED, f"-Xmx{heap_mb}m")
        self._arguments = (str(parallelism), str(watermark_interval_ms))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._java.pid

    def query(self, script: Path, statements: Sequence[str]) -> list[list[Value]]:
        """The rows of the last statement, after the others; `script` is a file to be written.

        Raises:
            RuntimeError: Flink refuses a statement, or does not answer.
        """
        script.write_text("\n---\n".join(statements))
        done = script.with_name(f"{script.name}.done")
        done.unlink(missing_ok=True)
        self._java.tell(str(script))
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while not done.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Flink did not answer {script}")
            time.sleep(0.01)
        if problem := done.read_text():
            raise RuntimeError(f"Flink refuses {script}: {problem}")
        lines = script.with_name(f"{script.name}.rows").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def __enter__(self) -> FlinkSql:
        self._java.start(*self._arguments)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._java.stop()
