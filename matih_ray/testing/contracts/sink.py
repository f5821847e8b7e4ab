"""The sink contract: subclass `SinkContract` and provide a `lab` fixture (see `sink_lab`).

A lab is a place with one storage and any number of endpoints on it, each as another process would
build it. Sinks whose commits cross a network also subclass `LostReplyContract`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

import pyarrow as pa
import pytest

from matih_ray.errors import FencedError, SchemaMismatchError
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker
from matih_ray.sinks.base import CommitOutcome, PreparedTarget
from matih_ray.testing.contracts.sink_lab import (
    ROWS,
    SCHEMA,
    SinkLab,
    UnreliableLab,
    assert_rows,
    batch,
    marker,
    slice_,
    target,
    write,
)

# Races are repeated: one round may be decided before the other thread has even started.
RACES = 5


class SinkContract:
    """What every sink must keep."""

    def test_nothing_is_visible_before_its_commit(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        receipt = write(sink, prepared, [batch()])
        assert receipt.rows == ROWS
        assert_rows(lab, prepared)
        assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED
        assert_rows(lab, prepared, batch())

    def test_what_a_dead_worker_wrote_never_becomes_visible(self, lab: SinkLab) -> None:
        prepared = lab.sink().prepare(target())
        write(lab.sink(), prepared, [batch(0)])
        second = lab.sink()
        receipt = write(second, prepared, [batch(ROWS)])
        second.commit(prepared, [receipt], marker(1))
        assert_rows(lab, prepared, batch(ROWS))

    def test_a_slice_that_was_never_closed_leaves_nothing(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        sink.writer(prepared, slice_()).write(batch())
        sink.commit(prepared, [], marker(1))
        assert_rows(lab, prepared)

    def test_committing_twice_loads_once(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        receipt = write(sink, prepared, [batch()])
        assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.APPLIED
        assert sink.commit(prepared, [receipt], marker(1)) is CommitOutcome.ALREADY_APPLIED
        again = lab.sink().commit(prepared, [receipt], marker(1))
        assert again is CommitOutcome.ALREADY_APPLIED
        assert_rows(lab, prepared, batch())

    def test_two_attempts_of_a_slice_load_it_once(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        write(sink, prepared, [batch()])
        second = write(lab.sink(), prepared, [batch()])
        sink.commit(prepared, [second], marker(1))
        assert_rows(lab, prepared, batch())

    def test_commits_add_up_and_the_last_marker_is_told(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        assert sink.last_marker(prepared) is None
        for sequence in (1, 2, 3):
            receipt = write(sink, prepared, [batch(sequence * ROWS)], sequence)
            sink.commit(prepared, [receipt], marker(sequence))
            assert lab.sink().last_marker(prepared) == marker(sequence)
        assert_rows(lab, prepared, batch(ROWS), batch(2 * ROWS), batch(3 * ROWS))

    def test_one_commit_takes_many_slices_of_many_batches(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        slices = [[batch(n * ROWS), batch((n + 1) * ROWS)] for n in (0, 2, 4)]
        receipts = [write(sink, prepared, batches, n) for n, batches in enumerate(slices)]
        sink.commit(prepared, receipts, marker(1))
        assert_rows(lab, prepared, *(one for batches in slices for one in batches))

    def test_an_empty_slice_and_an_empty_commit_only_move_the_marker(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        empty = write(sink, prepared, [])
        no_rows = write(sink, prepared, [batch(rows=0)], 1)
        assert empty.rows == no_rows.rows == 0
        sink.commit(prepared, [empty, no_rows], marker(1))
        sink.commit(prepared, [], marker(2))
        assert sink.last_marker(prepared) == marker(2)
        assert_rows(lab, prepared)

    def test_preparing_again_changes_nothing(self, lab: SinkLab) -> None:
        wanted = target()
        sink = lab.sink()
        prepared = sink.prepare(wanted)
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
        again = lab.sink().prepare(wanted)
        assert_rows(lab, again, batch())
        assert lab.sink().last_marker(again) == marker(1)

    def test_many_may_prepare_at_once(self, lab: SinkLab) -> None:
        wanted = target()
        prepared: list[PreparedTarget] = []
        _at_once([lambda: prepared.append(lab.sink().prepare(wanted))] * 4)
        assert len({one.to_json() for one in prepared}) == 1

    def test_an_aborted_writer_can_be_forgotten(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        writer = sink.writer(prepared, slice_())
        writer.abort()
        writer = sink.writer(prepared, slice_())
        writer.write(batch())
        writer.abort()
        writer.abort()
        sink.commit(prepared, [write(sink, prepared, [batch(ROWS)])], marker(1))
        assert_rows(lab, prepared, batch(ROWS))

    def test_aborted_receipts_leave_the_committed_ones(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        kept, dropped = write(sink, prepared, [batch()]), write(sink, prepared, [batch()], 1)
        sink.commit(prepared, [kept], marker(1))
        sink.abort(prepared, [dropped])
        sink.abort(prepared, [dropped])
        assert_rows(lab, prepared, batch())

    def test_closing_twice_is_harmless(self, lab: SinkLab) -> None:
        sink = lab.sink()
        sink.close()
        sink.close()

    # --- schemas

    @pytest.mark.parametrize(
        ("schema", "column"),
        [
            (SCHEMA.remove(1), "name"),
            (SCHEMA.append(pa.field("extra", pa.int64())), "extra"),
            (SCHEMA.set(0, pa.field("id", pa.string())), "id"),
            (SCHEMA.set(2, pa.field("price", pa.decimal128(18, 2))), "price"),
            (SCHEMA.set(4, pa.field("at", pa.timestamp("us"))), "at"),
        ],
        ids=["missing", "extra", "type", "scale", "zone"],
    )
    def test_rows_that_do_not_fit_the_table_are_refused(
        self, lab: SinkLab, schema: pa.Schema, column: str
    ) -> None:
        first = target()
        prepared = lab.sink().prepare(first)
        with pytest.raises(SchemaMismatchError, match=column):
            lab.sink().prepare(target(first.path, schema=schema))
        assert_rows(lab, prepared)

    def test_columns_in_another_order_fit(self, lab: SinkLab) -> None:
        first = target()
        lab.sink().prepare(first)
        turned = batch().select(SCHEMA.names[::-1])
        sink = lab.sink()
        prepared = sink.prepare(target(first.path, schema=turned.schema))
        sink.commit(prepared, [write(sink, prepared, [turned])], marker(1))
        assert_rows(lab, prepared, batch())

    def test_a_batch_of_another_schema_is_refused(self, lab: SinkLab) -> None:
        sink = lab.sink()
        writer = sink.writer(sink.prepare(target()), slice_())
        writer.write(batch())
        with pytest.raises(SchemaMismatchError):
            writer.write(batch().select(["id"]))

    # --- fencing

    @pytest.mark.parametrize(
        "late",
        [
            marker(1),
            marker(2, epoch=1),
            marker(2, epoch=3),
            marker(3, epoch=1),
            marker(4, epoch=2),
            marker(1, epoch=9),
        ],
        ids=["before", "same, older", "same, newer", "next, older", "after next", "restarted"],
    )
    def test_only_the_direct_successor_may_commit(self, lab: SinkLab, late: CommitMarker) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        sink.commit(prepared, [write(sink, prepared, [batch(0)])], marker(1))
        second = marker(2, epoch=2)
        sink.commit(prepared, [write(sink, prepared, [batch(ROWS)], 1)], second)
        receipt = write(sink, prepared, [batch(2 * ROWS)], 2)
        with pytest.raises(FencedError):
            lab.sink().commit(prepared, [receipt], late)
        assert sink.last_marker(prepared) == second
        assert_rows(lab, prepared, batch(0), batch(ROWS))

    def test_a_run_starts_with_sequence_one(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target())
        with pytest.raises(FencedError):
            sink.commit(prepared, [write(sink, prepared, [batch()])], marker(2))
        assert_rows(lab, prepared)

    def test_an_older_run_is_fenced_once_a_newer_has_committed(self, lab: SinkLab) -> None:
        wanted = target()
        sink = lab.sink()
        older = sink.prepare(wanted)
        newer = sink.prepare(wanted)
        sink.commit(newer, [write(sink, newer, [batch()])], marker(1, run="newer"))
        with pytest.raises(FencedError):
            sink.commit(older, [write(sink, older, [batch(ROWS)])], marker(1, run="older"))
        third = sink.prepare(wanted)
        sink.commit(third, [write(sink, third, [batch(ROWS)])], marker(1, run="third"))
        with pytest.raises(FencedError):
            sink.commit(newer, [], marker(2, run="newer"))
        assert_rows(lab, third, batch(), batch(ROWS))

    def test_a_paused_run_does_not_start_over_once_another_has_committed(
        self, lab: SinkLab
    ) -> None:
        wanted = target()
        sink = lab.sink()
        paused = sink.prepare(wanted)
        sink.commit(paused, [write(sink, paused, [batch()])], marker(1, run="paused"))
        other = sink.prepare(wanted)
        sink.commit(other, [], marker(1, run="other"))
        resumed = sink.prepare(wanted)
        again = write(sink, resumed, [batch()])
        for late in (marker(1, run="paused", epoch=2), marker(2, run="paused", epoch=2)):
            with pytest.raises(FencedError):
                sink.commit(resumed, [again], late)
        assert_rows(lab, resumed, batch())

    @pytest.mark.parametrize("sequence", [1, 2], ids=["first", "later"])
    @pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
    def test_two_owners_of_a_run_end_as_one(
        self, lab: SinkLab, mode: WriteMode, sequence: int
    ) -> None:
        published = mode.shows_each_commit
        for _ in range(RACES):
            prepared = lab.sink().prepare(target(mode=mode))
            if sequence == 2:
                lab.sink().commit(prepared, [], marker(1, published=published))
            owners = [marker(sequence, epoch=e, published=published) for e in (1, 2)]
            outcomes = _race(lab, prepared, owners)
            won = [epoch for epoch, one in outcomes.items() if one is CommitOutcome.APPLIED]
            lost = [one for one in outcomes.values() if isinstance(one, FencedError)]
            assert len(won) == len(lost) == 1
            assert lab.sink().last_marker(prepared) == owners[won[0] - 1]
            lab.sink().commit(prepared, [], marker(sequence + 1, epoch=won[0]))
            assert_rows(lab, prepared, batch(won[0] * ROWS))

    def test_streams_that_share_a_table_do_not_fence_each_other(self, lab: SinkLab) -> None:
        path = target().path
        sinks = [lab.sink() for _ in range(3)]
        prepared = [sink.prepare(target(path, unit=f"unit {n}")) for n, sink in enumerate(sinks)]

        def load(n: int) -> None:
            for sequence in (1, 2, 3):
                rows = batch((n * 10 + sequence) * ROWS, 100)
                receipt = write(sinks[n], prepared[n], [rows], sequence)
                sinks[n].commit(prepared[n], [receipt], marker(sequence, run=f"run {n}"))

        _at_once([partial(load, n) for n in range(3)])
        expected = [batch((n * 10 + s) * ROWS, 100) for n in range(3) for s in (1, 2, 3)]
        assert_rows(lab, prepared[0], *expected)
        for n, sink in enumerate(sinks):
            assert sink.last_marker(prepared[n]) == marker(3, run=f"run {n}")

    # --- overwrite

    def test_an_overwrite_is_visible_all_at_once_at_its_end(self, lab: SinkLab) -> None:
        wanted = target(mode=WriteMode.OVERWRITE)
        sink = lab.sink()
        first = sink.prepare(wanted)
        sink.commit(first, [write(sink, first, [batch()])], marker(1))
        assert_rows(lab, first, batch())

        second = sink.prepare(wanted)
        for sequence in (1, 2):
            receipt = write(sink, second, [batch(sequence * ROWS)], sequence)
            sink.commit(second, [receipt], marker(sequence, run="run-2", published=False))
            assert_rows(lab, second, batch())
            last = lab.sink().last_marker(second)
            assert last == marker(sequence, run="run-2", published=False)
        receipt = write(sink, second, [batch(3 * ROWS)], 3)
        sink.commit(second, [receipt], marker(3, run="run-2"))
        assert_rows(lab, second, batch(ROWS), batch(2 * ROWS), batch(3 * ROWS))

    def test_a_first_overwrite_goes_the_same_way(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target(mode=WriteMode.OVERWRITE))
        receipt = write(sink, prepared, [batch()])
        sink.commit(prepared, [receipt], marker(1, published=False))
        assert_rows(lab, prepared)
        assert sink.commit(prepared, [], marker(2)) is CommitOutcome.APPLIED
        assert sink.commit(prepared, [], marker(2)) is CommitOutcome.ALREADY_APPLIED
        assert_rows(lab, prepared, batch())

    def test_an_overwrite_with_nothing_empties_the_table(self, lab: SinkLab) -> None:
        wanted = target(mode=WriteMode.OVERWRITE)
        sink = lab.sink()
        first = sink.prepare(wanted)
        sink.commit(first, [write(sink, first, [batch()])], marker(1))
        second = sink.prepare(wanted)
        sink.commit(second, [], marker(1, run="run-2"))
        assert_rows(lab, second)

    def test_an_abandoned_overwrite_is_dropped_by_the_next(self, lab: SinkLab) -> None:
        wanted = target(mode=WriteMode.OVERWRITE)
        sink = lab.sink()
        dead = sink.prepare(wanted)
        sink.commit(dead, [write(sink, dead, [batch()])], marker(1, run="dead", published=False))
        alive = sink.prepare(wanted)
        receipt = write(sink, alive, [batch(ROWS)])
        sink.commit(alive, [receipt], marker(1, run="alive", published=False))
        with pytest.raises(FencedError):
            sink.commit(dead, [], marker(2, run="dead"))
        sink.commit(alive, [], marker(2, run="alive"))
        assert_rows(lab, alive, batch(ROWS))

    def test_another_owner_finishes_an_overwrite(self, lab: SinkLab) -> None:
        sink = lab.sink()
        wanted = target(mode=WriteMode.OVERWRITE)
        prepared = sink.prepare(wanted)
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1, published=False))
        other = lab.sink()
        again = other.prepare(wanted)
        receipt = write(other, again, [batch(ROWS)], 1)
        other.commit(again, [receipt], marker(2, epoch=2))
        with pytest.raises(FencedError):
            sink.commit(prepared, [], marker(2))
        assert_rows(lab, again, batch(), batch(ROWS))

    def test_appends_follow_an_overwrite(self, lab: SinkLab) -> None:
        full = target(mode=WriteMode.OVERWRITE)
        sink = lab.sink()
        prepared = sink.prepare(full)
        sink.commit(prepared, [write(sink, prepared, [batch()])], marker(1))
        incremental = sink.prepare(target(full.path))
        receipt = write(sink, incremental, [batch(ROWS)])
        sink.commit(incremental, [receipt], marker(1, run="run-2"))
        assert_rows(lab, incremental, batch(), batch(ROWS))

    # --- partitions, checksums, look-back

    @pytest.mark.parametrize(
        "partition_by",
        [
            ("name",),
            ("day(at)",),
            ("hour(at)",),
            ("month(day)",),
            ("bucket(5, id)", "year(at)"),
            ("truncate(3, name)", "identity(day)"),
            ("truncate(10, price)",),
        ],
        ids=str,
    )
    def test_partitioned_rows_read_back_the_same(
        self, lab: SinkLab, partition_by: tuple[str, ...]
    ) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target(partition_by=partition_by))
        rows = batch(rows=400)
        sink.commit(prepared, [write(sink, prepared, [rows])], marker(1))
        assert_rows(lab, prepared, rows)

    def test_a_checksum_is_the_fingerprint_of_what_was_written(self, lab: SinkLab) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target(checksum=True, partition_by=("bucket(3, id)",)))
        receipt = write(sink, prepared, [batch(0), batch(ROWS)])
        assert receipt.checksum == str(Fingerprint().add(batch(0)).add(batch(ROWS)))
        plain = sink.prepare(target())
        assert write(sink, plain, [batch()]).checksum is None

    def test_rows_that_the_table_has_are_dropped_when_asked(self, lab: SinkLab) -> None:
        sink = lab.sink()
        wanted = target(checksum=True)
        prepared = sink.prepare(wanted)
        sink.commit(prepared, [write(sink, prepared, [batch(0, 1_000)])], marker(1))
        again = sink.prepare(wanted)
        window = [batch(500, 300), batch(800, 900)]
        receipt = write(sink, again, window, dedupe_on=("at", "id", "price"))
        assert receipt.duplicates_dropped == 500
        assert receipt.rows == 700
        assert receipt.checksum == str(Fingerprint().add(batch(1_000, 700)))
        sink.commit(again, [receipt], marker(1, run="run-2"))
        assert_rows(lab, again, batch(0, 1_700))

    def test_changed_rows_and_repeated_rows_are_kept(self, lab: SinkLab) -> None:
        schema = pa.schema([("k", pa.int64()), ("v", pa.decimal128(38, 9))])

        def rows(*pairs: tuple[int | None, str | None]) -> pa.RecordBatch:
            numbers = [(k, None if v is None else Decimal(v)) for k, v in pairs]
            return pa.RecordBatch.from_pylist([{"k": k, "v": v} for k, v in numbers], schema)

        old = rows((1, "1"), (1, None), (None, "2"), (None, None), (2, "0.1"))
        new = rows((1, "1"), (1, None), (None, "2"), (None, None), (2, "0.1"))
        more = rows((1, "1"), (None, None), (2, "0.100000001"), (3, None), (3, None))
        sink = lab.sink()
        wanted = target(schema=schema)
        prepared = sink.prepare(wanted)
        sink.commit(prepared, [write(sink, prepared, [old])], marker(1))
        again = sink.prepare(wanted)
        receipt = write(sink, again, [new, more], dedupe_on=("k", "v"))
        assert (receipt.duplicates_dropped, receipt.rows) == (5, 5)
        sink.commit(again, [receipt], marker(1, run="run-2"))
        assert_rows(lab, again, old, more)


class LostReplyContract:
    """What a sink must keep whose commits may be applied without its being told."""

    @pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
    @pytest.mark.parametrize("mode", list(WriteMode), ids=lambda mode: mode.value)
    def test_a_lost_reply_loads_once(
        self, lab: UnreliableLab, mode: WriteMode, *, applied: bool
    ) -> None:
        sink = lab.sink()
        prepared = sink.prepare(target(mode=mode))
        receipt = write(sink, prepared, [batch()])
        lab.lose_reply(applied=applied)
        first = marker(1, published=mode.shows_each_commit)
        assert sink.commit(prepared, [receipt], first) is CommitOutcome.APPLIED
        assert sink.last_marker(prepared) == first
        lab.lose_reply(applied=applied)
        more = write(sink, prepared, [batch(ROWS)], 1)
        assert sink.commit(prepared, [more], marker(2)) is CommitOutcome.APPLIED
        assert sink.commit(prepared, [more], marker(2)) is CommitOutcome.ALREADY_APPLIED
        assert_rows(lab, prepared, batch(), batch(ROWS))


def _race(
    lab: SinkLab, prepared: PreparedTarget, markers: Sequence[CommitMarker]
) -> dict[int, CommitOutcome | FencedError]:
    """Commit all markers at one moment, each with rows of its own, and tell the end of each."""
    start = threading.Barrier(len(markers))
    outcomes: dict[int, CommitOutcome | FencedError] = {}

    def own(wanted: CommitMarker) -> None:
        sink = lab.sink()
        receipt = write(sink, prepared, [batch(wanted.epoch * ROWS)])
        start.wait()
        try:
            outcomes[wanted.epoch] = sink.commit(prepared, [receipt], wanted)
        except FencedError as error:
            outcomes[wanted.epoch] = error

    _at_once([partial(own, one) for one in markers])
    return outcomes


def _at_once(actions: Sequence[Callable[[], None]]) -> None:
    """Run all in threads of their own; the first exception is raised here."""
    errors: list[BaseException] = []

    def run(action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
