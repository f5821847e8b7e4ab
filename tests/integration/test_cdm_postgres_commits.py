"""Commits of the CDM sink that meet dead processes, dead servers and each other."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from matih_ray.errors import (
    CommitRejectedError,
    CommitUnknownError,
    FencedError,
    SinkError,
    SinkUnavailableError,
)
from matih_ray.model.policy import WriteMode
from matih_ray.sinks.base import CommitOutcome
from matih_ray.testing.contracts.sink_lab import (
    ROWS,
    assert_rows,
    batch,
    marker,
    slice_,
    target,
    write,
)
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.postgres_gate import PostgresGate
from tests.integration.cdm_lab import CdmLab

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()
MARKED = b"SET marker = "


@pytest.fixture
def lab(postgres: PostgresServer) -> CdmLab:
    return CdmLab.create(postgres, f"cdm_commits_{next(NUMBERS)}")


@pytest.fixture
def gated(postgres: PostgresServer) -> Iterator[tuple[CdmLab, PostgresGate]]:
    with PostgresGate(postgres.host, postgres.port) as gate:
        yield CdmLab.create(postgres, f"cdm_gated_{next(NUMBERS)}", gate.port), gate


@pytest.mark.parametrize("moment", ["writing", "written", "before_commit", "after_commit"])
def test_a_process_that_dies_anywhere_in_a_commit_costs_nothing(lab: CdmLab, moment: str):
    sink, wanted = lab.sink(), target()
    prepared = sink.prepare(wanted)
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.cdm_crash", lab.url, prepared.to_json(), moment],
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == -9
    applied = moment == "after_commit"
    assert sink.last_marker(prepared) == (marker(1) if applied else None)
    assert_rows(lab, prepared, *([batch()] if applied else []))
    # another owner resumes
    again = lab.sink()
    resumed = again.prepare(wanted)
    if not applied:
        receipt = write(again, resumed, [batch()])
        assert again.commit(resumed, [receipt], marker(1, epoch=2)) is CommitOutcome.APPLIED
    assert_rows(lab, resumed, batch())
    # and what the dead left is gone once the next run has committed
    third = again.prepare(wanted)
    again.commit(third, [], marker(1, run="run-2"))
    fourth = again.prepare(wanted)
    again.commit(fourth, [], marker(1, run="run-3"))
    assert lab.stages() == set()


def test_a_commit_leaves_no_stages_and_an_abort_neither(lab: CdmLab):
    sink = lab.sink()
    prepared = sink.prepare(target())
    kept, dropped = (write(sink, prepared, [batch()], n) for n in (0, 1))
    writer = sink.writer(prepared, slice_(2))
    writer.write(batch())
    assert len(lab.stages()) == 3
    writer.abort()
    sink.abort(prepared, [dropped])
    sink.commit(prepared, [kept], marker(1))
    assert lab.stages() == set()


def test_stages_of_an_unpublished_overwrite_are_kept_until_it_is(lab: CdmLab):
    sink = lab.sink()
    wanted = target(mode=WriteMode.OVERWRITE)
    first = sink.prepare(wanted)
    sink.commit(first, [write(sink, first, [batch()])], marker(1, published=False))
    resumed = lab.sink().prepare(wanted)
    other = lab.sink()
    receipt = write(other, resumed, [batch(ROWS)], 1)
    other.commit(resumed, [receipt], marker(2, epoch=2, published=False))
    assert len(lab.stages()) == 2
    other.commit(resumed, [], marker(3, epoch=2))
    assert_rows(lab, resumed, batch(), batch(ROWS))
    assert lab.stages() == set()


def test_rows_that_a_crash_of_the_server_has_emptied_are_noticed():
    with PostgresServer() as server:
        lab = CdmLab.create(server, "crashing")
        sink = lab.sink()
        prepared = sink.prepare(target())
        receipt = write(sink, prepared, [batch()])
        server.stop("immediate")
        server.start()
        with pytest.raises(SinkError, match="5000 rows and 0 are left"):
            sink.commit(prepared, [receipt], marker(1))
        assert sink.last_marker(prepared) is None
        receipt = write(sink, prepared, [batch()])
        assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED
        assert_rows(lab, prepared, batch())


def test_a_writer_whose_connection_is_lost_does_not_go_on_with_another(lab: CdmLab):
    sink = lab.sink()
    writer = sink.writer(sink.prepare(target()), slice_())
    writer.write(batch())
    lab.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with pytest.raises(SinkUnavailableError):
        writer.write(batch(ROWS))
    with pytest.raises(SinkUnavailableError):
        writer.close()


@pytest.mark.parametrize("applied", [True, False])
def test_when_nobody_can_be_asked_the_outcome_is_unknown_and_later_told(
    gated: tuple[CdmLab, PostgresGate], applied: bool
):
    lab, gate = gated
    sink = lab.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    gate.lose_reply(applied=applied, after=MARKED)
    gate.refuse(connections=True)
    with pytest.raises(CommitUnknownError):
        sink.commit(prepared, [receipt], marker(1))
    with pytest.raises(SinkUnavailableError):
        sink.last_marker(prepared)
    gate.refuse(connections=False)
    assert sink.last_marker(prepared) == (marker(1) if applied else None)
    outcome = sink.commit(prepared, [receipt], marker(1))
    assert outcome is (CommitOutcome.ALREADY_APPLIED if applied else CommitOutcome.APPLIED)
    assert_rows(lab, prepared, batch())


def test_a_commit_that_could_not_be_sent_is_certainly_not_applied(
    gated: tuple[CdmLab, PostgresGate],
):
    lab, gate = gated
    sink = lab.sink()
    prepared = sink.prepare(target())
    receipt = write(sink, prepared, [batch()])
    sink.close()
    gate.refuse(connections=True)
    with pytest.raises(CommitRejectedError):
        sink.commit(prepared, [receipt], marker(1))
    gate.refuse(connections=False)
    assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED


def test_the_marker_is_told_only_once_a_commit_under_way_has_ended(lab: CdmLab):
    sink = lab.sink()
    prepared = sink.prepare(target())
    sink.commit(prepared, [], marker(1))
    table = '"cdm"."cdm_matih_streams"'
    under_way = lab.server.connect(lab.database, autocommit=False)
    with under_way.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET marker = %s", [marker(2).to_json()])
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(lab.sink().last_marker(prepared)))
    asking.start()
    while not lab.query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        assert asking.is_alive()
    assert answers == []
    under_way.commit()
    under_way.close()
    asking.join()
    assert answers == [marker(2)]


def test_a_table_made_anew_fences_who_prepared_before(lab: CdmLab):
    sink = lab.sink()
    wanted = target()
    prepared = sink.prepare(wanted)
    receipt = write(sink, prepared, [batch()])
    lab.query(f'DROP TABLE cdm."{prepared.payload["table"]}"')
    again = lab.sink().prepare(wanted)
    with pytest.raises(FencedError, match="dropped and created again"):
        sink.commit(prepared, [receipt], marker(1))
    assert_rows(lab, again)
