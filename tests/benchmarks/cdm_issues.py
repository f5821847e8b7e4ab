"""Generated Jira issues through the canonical data model into PostgreSQL, end to end.

A tenth of the issues and all of them, each with a runtime and a database of its own, because a
process keeps the memory it once had. What the server takes alone is measured as well: the same
calls again, by httpx, with as many callers as a run has calls under way. All of it twice, and the
first time is not counted: worker processes start in it.

At first the server answers as fast as it can. It is ours and no fast one, and works on the cores
that the run works on. Then all issues are loaded from one that might have a core elsewhere: it
gives answers again that it gave before, one after the other, each after the CPU time that it took
when nobody else worked, but without that work. And from one that takes `LATENCY_S` for each answer,
as a real site does: now a run can be no faster than its calls.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from matih_ray.model.ids import EndpointId, UnitId
from matih_ray.model.policy import DataMode, IngestionPolicy, RunMode
from matih_ray.settings import Settings
from matih_ray.sources.provider_services import SLICE_CPUS
from matih_ray.sources.read_ahead import CALLS_AT_ONCE
from matih_ray.testing.client import ControlClient, issue_token
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.runtime import RuntimeProcess
from tests.benchmarks.contenders import TENANT, postmaster
from tests.benchmarks.machine import say
from tests.benchmarks.measure import MB, Meter, Usage, cpu_s

UNIT = UnitId("jira.issues")
SINK = "cdm.jdbc"
POLICY = IngestionPolicy(mode=DataMode.CDM, run_mode=RunMode.FULL, target_slice_rows=5000)
# One answer of the server, which looks at every issue for some calls.
CALL_TIMEOUT_S = 120.0
# Of each answer of a site.
LATENCY_S = 0.3
# Slices at a time, of which each has some calls under way.
CORES = os.cpu_count() or 1
CALLERS = int(CORES / SLICE_CPUS) * CALLS_AT_ONCE


@dataclass(frozen=True)
class Drained:
    """What the server takes for the calls of a run alone, and the callers with it."""

    calls: int
    wall_s: float
    server_cpu_s: float
    caller_cpu_s: float


def measure(server: PostgresServer, issues: int) -> dict[str, object]:
    """Both sizes, and how they compare."""
    tenth, _ = _measure(server, "tenth", max(issues // 10, 1))
    whole, alone = _measure(server, "whole", issues)
    apart, apart_alone = _measure(server, "apart", issues, replaying=True)
    paced, paced_alone = _measure(server, "paced", issues, latency_s=LATENCY_S)
    return {
        "issues": issues,
        "issues_s": round(whole.wall_s, 2),
        "issues_cpu_s": round(whole.cpu_s, 2),
        "issues_postgres_cpu_s": round(whole.server_cpu_s, 2),
        "issues_per_s": round(issues / whole.wall_s),
        "jira_calls": alone.calls,
        "jira_drained_s": round(alone.wall_s, 2),
        "jira_drained_server_cpu_s": round(alone.server_cpu_s, 2),
        "jira_drained_caller_cpu_s": round(alone.caller_cpu_s, 2),
        "issues_to_drained_ratio": round(whole.wall_s / alone.wall_s, 2),
        "issues_largest_process": whole.largest.name,
        "issues_largest_process_mb": round(whole.largest.resident_bytes / MB),
        "issues_tenth_largest_process_mb": round(tenth.largest.resident_bytes / MB),
        "issues_memory_ratio": round(
            whole.largest.resident_bytes / tenth.largest.resident_bytes, 3
        ),
        "apart_issues_s": round(apart.wall_s, 2),
        "apart_jira_drained_s": round(apart_alone.wall_s, 2),
        "apart_jira_drained_server_cpu_s": round(apart_alone.server_cpu_s, 2),
        "apart_issues_to_drained_ratio": round(apart.wall_s / apart_alone.wall_s, 2),
        "paced_latency_s": LATENCY_S,
        "paced_issues_s": round(paced.wall_s, 2),
        "paced_jira_drained_s": round(paced_alone.wall_s, 2),
        "paced_issues_to_drained_ratio": round(paced.wall_s / paced_alone.wall_s, 2),
    }


def _measure(
    server: PostgresServer,
    name: str,
    count: int,
    *,
    latency_s: float = 0.0,
    replaying: bool = False,
) -> tuple[Usage, Drained]:
    database = f"issues_{name}"
    server.create_database(database)
    url = f"postgresql://{server.user}@{server.host}:{server.port}/{database}"
    with JiraServer() as jira, RuntimeProcess(settings={"cdm_database_url": url}) as runtime:
        jira.do("generate", project="SHOP", count=count)
        # with a clock that stands, the second load asks what the first asked
        jira.do("set", frozen_ms=time.time_ns() // 1_000_000, recording=True)
        token = issue_token(Settings(home=runtime.home), TENANT)
        with contextlib.closing(ControlClient(runtime.url, token, TENANT)) as client:
            config = {"baseUrl": jira.url, "user": USER}
            source = client.register("tracker", "JIRA", config, {"apiToken": TOKEN}).endpoint_id
            client.collect(source)
            _load(client, source, count)
            server.execute("TRUNCATE cdm.cdm_work_item", database)
            if replaying:
                jira.do("set", keeping=True)
                _drain(jira)
                jira.do("set", keeping=False)
            jira.do("set", recorded=[], replaying=replaying, latency_s=latency_s)
            with Meter(postmaster(server), runtime.pid) as meter:
                _load(client, source, count)
            jira.do("set", recording=False)
        _check(server, database, count)
        drained = _drain(jira)
    say(f"{name}, {count} issues: {meter.usage.wall_s:.1f} s, drained {drained.wall_s:.1f} s")
    shutil.rmtree(runtime.home, ignore_errors=True)
    return meter.usage, drained


def _load(client: ControlClient, source: EndpointId, count: int) -> None:
    run = client.finish(client.start_run(source, UNIT, POLICY, SINK))
    if run.rows != count:
        raise RuntimeError(f"loaded {run.rows} of {count} issues")


def _check(server: PostgresServer, database: str, count: int) -> None:
    found = server.execute(
        "SELECT count(*), count(DISTINCT item_key) FROM cdm.cdm_work_item WHERE NOT is_deleted",
        database,
    )
    if found != [(count, count)]:
        raise RuntimeError(f"the table holds {found}")


def _drain(jira: JiraServer) -> Drained:
    calls = [tuple(call) for call in jira.do("recorded")]
    before_server, before_own = cpu_s([jira.pid]), time.process_time()
    started = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda part: _ask(jira, part), [calls[n::CALLERS] for n in range(CALLERS)]))
    return Drained(
        calls=len(calls),
        wall_s=time.perf_counter() - started,
        server_cpu_s=cpu_s([jira.pid]) - before_server,
        caller_cpu_s=time.process_time() - before_own,
    )


def _ask(jira: JiraServer, calls: Sequence[tuple[str, str, object]]) -> None:
    with httpx.Client(
        base_url=jira.url, auth=(USER, TOKEN), timeout=CALL_TIMEOUT_S, trust_env=False
    ) as client:
        for method, path, body in calls:
            client.request(method, path, json=body).raise_for_status().json()
