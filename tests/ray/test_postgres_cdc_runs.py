"""Runs by PostgreSQL's log on a cluster: the table equals the source after each of them, whoever
is killed meanwhile, and the source keeps nothing for readers that are gone."""

from __future__ import annotations

import httpx
import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, RunMode, WriteMode
from matih_ray.model.run import RunRecord, RunState
from tests.ray.lab import SLICE_ROWS, Lab, create_table
from tests.ray.test_connectors import http  # noqa: F401 a fixture

ROWS = 60_000
APPEND = IngestionPolicy(run_mode=RunMode.CDC, target_slice_rows=SLICE_ROWS, commit_interval_s=0)
MERGE = APPEND.model_copy(update={"write_mode": WriteMode.MERGE})


def slots(lab: Lab) -> list[tuple[object, ...]]:
    return lab.server.execute(
        f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = '{lab.database}'"
    )


def change(lab: Lab, number: int) -> None:
    """Rows change, go, come, and get other keys."""
    lab.server.execute(
        f"""
        UPDATE t SET amount = amount + 1, note = 'changed {number}' WHERE id % 7 = {number};
        DELETE FROM t WHERE id % 11 = {number};
        INSERT INTO t SELECT g, g, 'new' FROM generate_series({number + 1} * 1000000,
            {number + 1} * 1000000 + 2000) g;
        UPDATE t SET id = id + 500000 WHERE id % 100 = {number} AND id < {ROWS};
        """,
        lab.database,
    )


def completed(lab: Lab, unit_id: str, policy: IngestionPolicy, step: Step | None) -> RunRecord:
    if step is not None:
        lab.faults.arm(step)
    run = lab.wait(lab.start(lab.unit("t"), policy))
    assert run.stream.unit_id == unit_id
    assert run.state is RunState.COMPLETED, run.error
    assert step is None or not lab.faults.is_armed(step), "the fault never happened"
    return run


def test_a_merged_table_follows_its_source(lab: Lab, http: httpx.Client) -> None:  # noqa: F811
    create_table(lab.server, lab.database, "t", rows=ROWS)
    body = {
        "endpointId": lab.endpoint_id,
        "unitId": lab.unit("t"),
        "policy": MERGE.to_dict(),
    }
    assert len(http.post("/plans", json=body).json()["slices"]) > 1
    assert slots(lab) == []  # a plan leaves nothing behind
    before: tuple[object, ...] = ()
    for number in range(3):
        started = http.post("/runs", json=body)
        assert started.status_code == 201, started.text
        run = lab.wait(started.json()["runId"])
        assert run.state is RunState.COMPLETED, run.error
        assert lab.sink_rows(run) == lab.source_rows("t")
        (confirmed,) = slots(lab)
        assert confirmed != before, "the source still keeps what is loaded"
        before = confirmed
        change(lab, number)
    path = f"/connectors/{lab.endpoint_id}/test"
    assert http.post(path).json()["capabilities"]["cdc"] is True


@pytest.mark.parametrize("step", [Step.WRITTEN, Step.COMMITTING, Step.CHECKPOINTED])
def test_a_process_killed_in_the_first_or_the_second_run_costs_nothing_but_time(
    lab: Lab, step: Step
) -> None:
    create_table(lab.server, lab.database, "t", rows=ROWS)
    completed(lab, "public.t", MERGE, step)
    change(lab, 1)
    run = completed(lab, "public.t", MERGE, step)
    assert lab.sink_rows(run) == lab.source_rows("t")


@pytest.mark.parametrize("step", [Step.COMMITTED])
def test_each_change_is_appended_once_whoever_is_killed(lab: Lab, step: Step) -> None:
    create_table(lab.server, lab.database, "t", rows=ROWS)
    first = completed(lab, "public.t", APPEND, step)
    assert lab.sink_rows(first) == lab.source_rows("t")
    lab.server.execute(f"INSERT INTO t SELECT id + {ROWS}, amount, note FROM t", lab.database)
    run = completed(lab, "public.t", APPEND, step)
    assert run.rows == ROWS
    assert lab.sink_rows(run) == lab.source_rows("t")


def test_a_reset_lets_the_source_forget_and_the_next_run_begins_anew(
    lab: Lab,
    http: httpx.Client,  # noqa: F811
) -> None:
    create_table(lab.server, lab.database, "t", rows=1000)
    completed(lab, "public.t", MERGE, None)
    assert len(slots(lab)) == 1
    query = {"endpointId": lab.endpoint_id, "unitId": "public.t"}
    assert http.delete("/checkpoints", params=query).status_code in (200, 204)
    assert slots(lab) == []
    lab.server.execute("UPDATE t SET note = 'changed'", lab.database)
    run = completed(lab, "public.t", MERGE, None)
    assert run.rows == 1000
    assert lab.sink_rows(run) == lab.source_rows("t")
    assert http.delete(f"/connectors/{lab.endpoint_id}").status_code == 204
    assert slots(lab) == []
