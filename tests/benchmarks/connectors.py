"""One sweep of health checks over many connectors, and the listing while it goes on.

`make bench-connectors CONNECTORS=1000`. All connectors point at one local server. They are written
straight into the store, as if each had been tested a quarter of an hour ago, and become due
together; the sweep has ended when every one has a newer test.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from datetime import datetime, timedelta

import httpx
from sqlalchemy import func, select, update

from matih_ray.control.connector_health import MAX_HISTORY
from matih_ray.control.ports import utc_now
from matih_ray.model.connector import ConnectorState, HealthPoint
from matih_ray.model.ids import EndpointId
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord
from matih_ray.state.factory import open_stores
from matih_ray.state.sql import SqlMetadataStore
from matih_ray.state.tables import connector_states
from matih_ray.testing.client import issue_token
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.benchmarks.contenders import DATABASE, TENANT, Ours
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say

GIVE_UP_AFTER_S = 600.0
PAGE_ITEMS = 100
# Enough for a 99th percentile of a machine that does nothing else.
IDLE_LISTINGS = 200


def main() -> None:
    """Make connectors, let them be due, watch."""
    count = int(number("CONNECTORS", 1000))
    with PostgresServer(options=SERVER_OPTIONS) as server:
        machine = describe(server)
        with contextlib.closing(Ours(server)) as ours:
            settings = Settings(home=ours.runtime.home)
            stores = open_stores(settings)
            metadata = stores.metadata
            assert isinstance(metadata, SqlMetadataStore)
            ids = _made(metadata, server, count)
            say(f"{count} connectors")
            idle_ms = _listed_until(ours, threading.Event(), at_least=IDLE_LISTINGS)
            done = threading.Event()
            times: list[float] = []
            watcher = threading.Thread(target=lambda: times.extend(_listed_until(ours, done)))
            started = utc_now()
            with metadata.database.write("let all be due") as connection:
                connection.execute(update(connector_states).values(due_at=started))
            watcher.start()
            sweep_s, ok = _swept(metadata, ids, started)
            done.set()
            watcher.join()
            stores.close()
    last_line(
        {
            "benchmark": "connectors",
            "connectors": count,
            "sweep_s": round(sweep_s, 1),
            "all_active": ok,
            "listings": len(times),
            "list_idle_median_ms": round(statistics.median(idle_ms), 1),
            "list_idle_p99_ms": _p99(idle_ms),
            "list_median_ms": round(statistics.median(times), 1),
            "list_p99_ms": _p99(times),
            "machine": machine,
        }
    )


def _p99(times_ms: list[float]) -> float:
    return round(statistics.quantiles(times_ms, n=100)[98], 1)


def _made(metadata: SqlMetadataStore, server: PostgresServer, count: int) -> list[EndpointId]:
    now = utc_now()
    point = HealthPoint(tested_at=now, success=True, latency_ms=3.0, error_code=None)
    ids = [EndpointId(f"bench-{index:05d}") for index in range(count)]
    for endpoint_id in ids:
        metadata.put_endpoint(
            EndpointRecord(
                endpoint_id=endpoint_id,
                tenant_id=TENANT,
                name=endpoint_id,
                type="POSTGRESQL",
                config={
                    "host": server.host,
                    "port": server.port,
                    "database": DATABASE,
                    "user": server.user,
                    "sslMode": "disable",
                },
                created_at=now,
                updated_at=now,
            )
        )
        state = ConnectorState(
            tenant_id=TENANT,
            endpoint_id=endpoint_id,
            due_at=now + timedelta(days=1),
            history=(point,) * MAX_HISTORY,
        )
        with contextlib.suppress(Exception):  # the supervisor may have been faster
            metadata.put_connector_state(state)
    return ids


def _swept(
    metadata: SqlMetadataStore, ids: list[EndpointId], since: datetime
) -> tuple[float, bool]:
    """Seconds until all had a newer test, and whether all succeeded.

    Waiting only counts rows: reading a thousand states each second would take the interpreter from
    the thread that times listings.
    """
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    left = select(func.count()).where(connector_states.c.due_at <= since)
    while time.monotonic() < deadline:
        with metadata.database.read("count who is due") as connection:
            if not connection.execute(left).scalar_one():
                break
        time.sleep(0.5)
    tests = []
    for start in range(0, len(ids), 500):
        states = metadata.list_connector_states(TENANT, ids[start : start + 500])
        tests += [state.last_test for state in states.values() if state.last_test is not None]
    newer = [test for test in tests if test.tested_at >= since]
    if len(newer) < len(ids):
        raise RuntimeError(f"only {len(newer)} of {len(ids)} were tested in {GIVE_UP_AFTER_S:g} s")
    last = max(test.tested_at for test in newer)
    return (last - since).total_seconds(), all(test.success for test in newer)


def _listed_until(ours: Ours, done: threading.Event, at_least: int = 0) -> list[float]:
    """Milliseconds of listings, one after the other with a short pause, until `done`."""
    token = issue_token(Settings(home=ours.runtime.home), TENANT)
    times: list[float] = []
    url = f"{ours.runtime.url}/api/v1/tenants/{TENANT}/connectors"
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
        while not done.is_set() or len(times) < at_least:
            start = time.perf_counter()
            client.get(url, params={"limit": PAGE_ITEMS}).raise_for_status()
            times.append((time.perf_counter() - start) * 1000)
            if at_least and len(times) >= at_least:
                break
            time.sleep(0.05)
    return times


if __name__ == "__main__":
    main()
