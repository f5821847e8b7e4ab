"""Fencing: whether a commit may follow the one that the target carries. Pure; for every sink.

The target stores the last marker of each stream and the runs that have committed before it. An
incoming marker is judged by them and by the marker that its run saw when it prepared
(`predecessor`):

    stored                          incoming                     verdict
    the same marker                 -                            already applied
    same run                        sequence + 1, epoch not less apply
    same run                        anything else                fenced
    the run's predecessor (or none) a new run, sequence 1        apply
    anything else                   another run                  fenced

So the markers of a stream form one chain, and of two owners that both want to be the next link
exactly one is: the second finds another marker with its sequence and is fenced, even if its epoch
is higher (its rows are the same slices, so nothing is missing; it resumes from the stored marker).
A run that prepared before another run's commit is fenced at its first commit, because its plan
may overlap what that run loaded. Run ids say nothing about age; the predecessor does. And a run
that has committed before (it was paused, and another run went ahead) is fenced however it prepares:
its slices are in the target already.
"""

from __future__ import annotations

from collections.abc import Collection

from matih_ray.errors import FencedError
from matih_ray.model.ids import RunId
from matih_ray.model.receipt import CommitMarker

# Runs remembered for each stream, newest last. A run that is older than all of them would have to
# be resumed after that many others; a property of some KB holds them.
RUNS_REMEMBERED = 100


def already_applied(
    stored: CommitMarker | None,
    predecessor: CommitMarker | None,
    earlier_runs: Collection[RunId],
    incoming: CommitMarker,
) -> bool:
    """True if the target carries this very marker, False if it may be applied now.

    Raises:
        FencedError: Another owner or another run has committed since.
    """
    if stored == incoming:
        return True
    if stored is None or stored.run_id != incoming.run_id:
        is_new = incoming.sequence == 1 and incoming.run_id not in earlier_runs
        if is_new and stored == predecessor:
            return False
        raise _fenced(stored, incoming)
    if incoming.sequence == stored.sequence + 1 and incoming.epoch >= stored.epoch:
        return False
    raise _fenced(stored, incoming)


def runs_after(
    stored: CommitMarker | None, earlier_runs: Collection[RunId], incoming: CommitMarker
) -> tuple[RunId, ...]:
    """The runs to remember once `incoming` is applied: all before its own."""
    if stored is None or stored.run_id == incoming.run_id:
        return tuple(earlier_runs)
    return (*earlier_runs, stored.run_id)[-RUNS_REMEMBERED:]


def _fenced(stored: CommitMarker | None, incoming: CommitMarker) -> FencedError:
    found = _text(stored)
    return FencedError(
        f"commit {_text(incoming)} cannot follow {found}, which the table carries: another owner "
        "has committed; this one must stop, and a new one resumes from the table's marker",
        run_id=incoming.run_id,
        epoch=incoming.epoch,
        sequence=incoming.sequence,
        found=found,
    )


def _text(marker: CommitMarker | None) -> str:
    if marker is None:
        return "no marker"
    return f"{marker.sequence} of run {marker.run_id} in epoch {marker.epoch}"
