"""Which commit may follow which, and where its snapshot goes."""

from __future__ import annotations

import itertools

import pytest

from matih_ray.errors import FencedError
from matih_ray.model.policy import WriteMode
from matih_ray.sinks.fencing import RUNS_REMEMBERED, already_applied, runs_after
from matih_ray.sinks.iceberg.snapshots import Placement, TableView, place
from matih_ray.testing.contracts.sink_lab import marker


def test_a_first_commit_finds_what_its_run_saw():
    before = marker(7, run="before")
    assert already_applied(None, None, (), marker(1)) is False
    assert already_applied(before, before, (), marker(1)) is False


def test_the_same_marker_is_already_applied():
    assert already_applied(marker(3), None, (), marker(3)) is True


@pytest.mark.parametrize(
    ("stored", "predecessor", "incoming"),
    [
        (None, None, marker(2)),
        (None, marker(1, run="before"), marker(1)),  # the table lost its marker
        (marker(1, run="other"), None, marker(1)),
        (marker(2, run="other"), marker(1, run="other"), marker(1)),
        (marker(1, run="other"), marker(1, run="other"), marker(2)),
        (marker(5), None, marker(5, epoch=2)),
        (marker(5), None, marker(5, published=False)),
        (marker(5, epoch=2), None, marker(6, epoch=1)),
        (marker(5), None, marker(7)),
        (marker(5), None, marker(4)),
    ],
)
def test_anything_else_is_fenced(stored, predecessor, incoming):
    with pytest.raises(FencedError) as caught:
        already_applied(stored, predecessor, (), incoming)
    assert caught.value.context["sequence"] == incoming.sequence


def test_a_run_that_has_committed_before_another_does_not_start_again():
    """Not even if it prepares anew, and so knows the other run's marker."""
    first, second = marker(3, run="first"), marker(2, run="second")
    runs = runs_after(first, (), marker(1, run="second"))
    assert runs == ("first",)
    assert runs_after(marker(1, run="second"), runs, second) == runs
    with pytest.raises(FencedError):
        already_applied(second, second, runs, marker(1, run="first"))
    assert already_applied(second, second, runs, marker(1, run="third")) is False


def test_no_more_than_some_runs_are_remembered():
    runs = ()
    for number in range(RUNS_REMEMBERED + 50):
        runs = runs_after(marker(1, run=f"run {number}"), runs, marker(1, run="next"))
    assert len(runs) == RUNS_REMEMBERED
    assert runs[-1] == f"run {RUNS_REMEMBERED + 49}"


def test_of_any_two_that_may_follow_one_state_only_one_ever_does():
    markers = [marker(s, run=r, epoch=e) for s, r, e in itertools.product((1, 2, 3), "ab", (1, 2))]
    for stored, predecessor in itertools.product([None, *markers], repeat=2):
        candidates = [one for one in markers if _may(stored, predecessor, one)]
        for first, second in itertools.permutations(candidates, 2):
            assert not _may(first, predecessor, second)


def _may(stored, predecessor, incoming):
    try:
        return not already_applied(stored, predecessor, (), incoming)
    except FencedError:
        return False


MAIN, BRANCH = 10, 20


@pytest.mark.parametrize(
    ("view", "mode", "incoming", "expected"),
    [
        (TableView(None, None, None), "append", marker(1), Placement(None, True, False)),
        (TableView(MAIN, None, marker(1)), "append", marker(2), Placement(MAIN, True, False)),
        (TableView(None, None, None), "overwrite", marker(1), Placement(None, True, False)),
        (TableView(MAIN, None, None), "overwrite", marker(1), Placement(None, True, True)),
        (
            TableView(MAIN, BRANCH, marker(1, run="dead", published=False)),
            "overwrite",
            marker(1, published=False),
            Placement(None, False, True),
        ),
        (
            TableView(MAIN, BRANCH, marker(1, published=False)),
            "overwrite",
            marker(2, published=False),
            Placement(BRANCH, False, True),
        ),
        (
            TableView(MAIN, BRANCH, marker(1, published=False)),
            "overwrite",
            marker(2),
            Placement(BRANCH, True, True),
        ),
        (TableView(MAIN, None, marker(1)), "overwrite", marker(2), Placement(MAIN, True, False)),
    ],
)
def test_where_a_commit_goes(view, mode, incoming, expected):
    assert place(view, incoming, shows_each=WriteMode(mode).shows_each_commit) == expected


def test_an_overwrite_whose_branch_is_gone_does_not_publish_the_rest():
    view = TableView(MAIN, None, marker(1, published=False))
    with pytest.raises(FencedError, match="branch"):
        place(view, marker(2), shows_each=False)
