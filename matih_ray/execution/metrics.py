"""Ray metrics of runs, visible at the node's metrics endpoint with the prefix `ray_`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ray.util import metrics

from matih_ray import telemetry
from matih_ray.model.checkpoint import StreamKey

# Upper bounds in seconds: a local catalog commits in tens of milliseconds, a busy one in seconds.
COMMIT_BUCKETS_S = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]


class RunMetrics:
    """Counters and gauges of this process; tags are tenant, endpoint and unit."""

    def __init__(self) -> None:
        tags = telemetry.METRIC_TAGS
        self._rows = metrics.Counter(telemetry.METRIC_ROWS, "Rows committed", tag_keys=tags)
        self._bytes = metrics.Counter(telemetry.METRIC_BYTES, "Bytes committed", tag_keys=tags)
        self._slices = metrics.Counter(telemetry.METRIC_SLICES, "Slices committed", tag_keys=tags)
        self._depth = metrics.Gauge(
            telemetry.METRIC_QUEUE_DEPTH, "Staged batches not yet written", tag_keys=tags
        )
        self._commit = metrics.Histogram(
            telemetry.METRIC_COMMIT_SECONDS,
            "Seconds per commit, from sink commit to run record",
            boundaries=COMMIT_BUCKETS_S,
            tag_keys=tags,
        )

    def committed(
        self, stream: StreamKey, *, rows: int, bytes_: int, slices: int, seconds: float
    ) -> None:
        """Count one commit."""
        tags = _tags(stream)
        for counter, amount in ((self._rows, rows), (self._bytes, bytes_), (self._slices, slices)):
            if amount > 0:
                counter.inc(amount, tags)
        self._commit.observe(seconds, tags)

    def queue_depth(self, stream: StreamKey, depth: int) -> None:
        """Report staged batches that wait to be written."""
        self._depth.set(depth, _tags(stream))


@lru_cache(maxsize=1)
def process_metrics() -> RunMetrics:
    """The metrics of this process; Ray allows each name once."""
    return RunMetrics()


def _tags(stream: StreamKey) -> dict[str, Any]:
    return {
        "tenant": stream.tenant_id,
        "endpoint": stream.endpoint_id,
        "unit": stream.unit_id,
    }
