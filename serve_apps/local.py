"""A whole runtime on this machine: Ray, planners, supervisor and the control API on loopback.

    with start_local(settings) as runtime:
        httpx.get(runtime.url + "/api/v1/health")

`python -m serve_apps.local` runs one in the foreground until it is interrupted.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from types import TracebackType

import ray
from ray import serve

from matih_ray.api.agent_app import AGENT_PREFIX
from matih_ray.execution.cluster import ensure_actors, wait_for_actors
from matih_ray.execution.launcher import NAMESPACE
from matih_ray.settings import Settings
from serve_apps import agent_api
from serve_apps.control_api import bind

APP_NAME = "control"
AGENT_NAME = "agent"
# Far above the largest request that the API takes and the largest page that it gives.
MAX_MESSAGE_BYTES = 256 << 20


@dataclass(frozen=True)
class LocalRuntime:
    """A running local runtime; closing it stops exactly what it started."""

    settings: Settings
    url: str

    def close(self) -> None:
        """Stop Serve and the Ray that was started with it."""
        serve.shutdown()
        ray.shutdown()

    def __enter__(self) -> LocalRuntime:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def start_local(settings: Settings, *, num_cpus: int | None = None) -> LocalRuntime:
    """Start Ray and everything on it. One runtime per process.

    Args:
        settings: `home` is created; `http_port` must be free.
        num_cpus: CPUs that slice tasks may use; all of the machine's by default.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    # A cluster of our own on loopback: no token to agree on, no usage report, no warning noise.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray starts its workers at niceness 15, the API among them: hardly above what yields on purpose
    # (health checks), and below every other process of the machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Requests go from the proxy to their replica by gRPC, and not by way of Ray's object store: a
    # listing takes a quarter less time. gRPC's own limit of a message is 4 MB, less than a large
    # page.
    os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
    os.environ.setdefault("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", str(MAX_MESSAGE_BYTES))
    # Every process of Serve looks around ten times a second: a fifth of what an idle runtime takes.
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_SERVE_METRICS_EXPORT_INTERVAL_MS", "5000")
    # Ray ends the processes beyond one for each core, actors counted, after a second without work.
    # A new one takes a second and a half of CPU, and the next run often comes within two minutes.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "120000")
    # Batches that were written leave the object store once a second: up to then a run at full speed
    # has filled 150 MB, which every process then has in its memory, instead of 40.
    os.environ.setdefault("RAY_free_objects_period_milliseconds", "100")
    ray.init(
        address="local",
        num_cpus=num_cpus,
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=settings.object_store_bytes,
        log_to_driver=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
    )
    wait_for_actors(ensure_actors(settings))
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": settings.http_host, "port": settings.http_port},
    )
    # both at once: a replica's start is mostly reading libraries, which two do side by side
    serve.run_many(
        [
            serve.RunTarget(bind(settings), name=APP_NAME, route_prefix="/"),
            serve.RunTarget(agent_api.bind(settings), name=AGENT_NAME, route_prefix=AGENT_PREFIX),
        ]
    )
    return LocalRuntime(settings, f"http://{settings.http_host}:{settings.http_port}")


def main() -> None:
    """Run a local runtime until SIGINT or SIGTERM; prints its address."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with start_local(Settings()) as runtime:
        print(runtime.url, flush=True)  # noqa: T201 the one line a caller waits for
        stop.wait()


if __name__ == "__main__":
    main()
