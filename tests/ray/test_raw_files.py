"""Runs into raw files on a cluster: files hold what the table holds, whoever dies on the way."""

from __future__ import annotations

import duckdb
import pytest

from matih_ray.execution.steps import Step
from matih_ray.model.policy import IngestionPolicy, RunMode, Verify
from matih_ray.model.run import RunRecord, RunState
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.raw_files.config import Place
from matih_ray.sinks.raw_files.log import CommitLog, TablePaths
from matih_ray.sinks.raw_files.target import RawTarget
from tests.ray.lab import Lab, create_table

ROWS, SLICE_ROWS = 60_000, 15_000
FULL = IngestionPolicy(target_slice_rows=SLICE_ROWS, commit_interval_s=0, verify=Verify.CHECKSUM)
INCREMENTAL = FULL.model_copy(update={"run_mode": RunMode.INCREMENTAL, "cursor_column": "id"})


def directory(lab: Lab, run: RunRecord) -> str:
    """Where the files of a run's table are; what its log names is all that is found there."""
    assert run.target is not None
    target = RawTarget.from_json(dict(PreparedTarget.from_json(run.target).payload))
    log = CommitLog(Place.from_settings(lab.ports.settings).open(), TablePaths.of(target.path))
    root = log.storage.full(log.paths.table)
    named = {f"{root}/{file.name}" for file in log.published()}
    found = duckdb.sql(f"SELECT file FROM glob('{root}/**/*.parquet')").fetchall()
    assert {name for (name,) in found} == named
    return root


def file_rows(lab: Lab, run: RunRecord) -> tuple[int, str]:
    """Count and checksum as `Lab.source_rows` has them, by a stranger's reader."""
    [(count, total)] = duckdb.sql(
        f"""SELECT count(*), coalesce(sum(('0x' || substr(md5(concat_ws('|', id,
            coalesce(amount::varchar, '~'), coalesce(note, '~'))), 1, 15))::hugeint), 0)::varchar
            FROM read_parquet('{directory(lab, run)}/**/*.parquet')"""
    ).fetchall()
    return int(count), str(total)


def load(lab: Lab, unit_id: str, policy: IngestionPolicy) -> RunRecord:
    run = lab.wait(lab.start(unit_id, policy, sink_id="raw"))
    assert run.state is RunState.COMPLETED, run.error
    return run


def test_full_and_incremental_loads_hold_the_rows_of_the_table(lab: Lab) -> None:
    create_table(lab.server, lab.database, "t", ROWS)
    unit_id = lab.unit("t")
    for _ in range(2):
        assert file_rows(lab, load(lab, unit_id, FULL)) == lab.source_rows("t")
    create_table(lab.server, lab.database, "more", ROWS)
    more = lab.unit("more")
    load(lab, more, INCREMENTAL)
    lab.server.execute(f"INSERT INTO more SELECT {ROWS} + 1, 1, 'new'", lab.database)
    run = load(lab, more, INCREMENTAL)
    assert file_rows(lab, run) == lab.source_rows("more")


@pytest.mark.parametrize(
    ("policy", "step"),
    [(FULL, Step.COMMITTED), (INCREMENTAL, Step.WRITTEN), (INCREMENTAL, Step.COMMITTING)],
    ids=["overwrite committed", "append written", "append committing"],
)
def test_a_killed_process_costs_only_uncommitted_slices(
    lab: Lab, policy: IngestionPolicy, step: Step
) -> None:
    create_table(lab.server, lab.database, "t", ROWS)
    unit_id = lab.unit("t")
    lab.faults.arm(step, after=1)
    run = load(lab, unit_id, policy)
    assert not lab.faults.is_armed(step), "the fault never happened"
    assert file_rows(lab, run) == lab.source_rows("t")
