"""The commit: one entry of the log under the next number, or another's is there first."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from matih_ray.errors import CommitRejectedError, CommitUnknownError, SinkError
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.sinks.base import CommitOutcome
from matih_ray.sinks.fencing import already_applied, runs_after
from matih_ray.sinks.raw_files.log import (
    LISTED_EVERY,
    CommitLog,
    LogEntry,
    RawFile,
    StreamState,
    check_is,
    new_token,
)
from matih_ray.sinks.raw_files.publishing import Publisher
from matih_ray.sinks.raw_files.storage import mapped
from matih_ray.sinks.raw_files.target import RawTarget

# Others that write to the same table at the same moment: each round one of them gets through.
ATTEMPTS = 50
BACKOFF_MAX_S = 0.5


@dataclass(frozen=True)
class MarkedCommit:
    """One commit of receipts with their marker."""

    log: CommitLog
    target: RawTarget
    mode: WriteMode
    marker: CommitMarker

    def run(self, receipts: Sequence[WriteReceipt]) -> CommitOutcome:
        """Apply the commit, or find that it was; see `SinkEndpoint.commit` for what is raised."""
        files = files_of(receipts)
        for attempt in range(ATTEMPTS):
            with mapped(self._what):
                latest = check_is(
                    Publisher(self.log).finish(), self.target.table_id, self.log.paths.table
                )
            state = latest.streams.get(self.target.stream, StreamState())
            if already_applied(state.marker, self.target.predecessor, state.runs, self.marker):
                return CommitOutcome.ALREADY_APPLIED
            outdated = self._outdated(state)
            if self._append(self._entry(latest, state, files)):
                self._publish(outdated)
                return CommitOutcome.APPLIED
            time.sleep(random.uniform(0, min(BACKOFF_MAX_S, 0.01 * 2**attempt)))  # noqa: S311 jitter
        raise CommitRejectedError(f"cannot {self._what}: others commit to the same table all along")

    @property
    def _what(self) -> str:
        return f"commit {self.marker.sequence} of run {self.marker.run_id}"

    def _append(self, entry: LogEntry) -> bool:
        try:
            with mapped(self._what):
                return self.log.append(entry)
        except SinkError as error:
            raise CommitUnknownError(
                f"{error.message}; it may or may not have been applied: ask for the marker"
            ) from None

    def _publish(self, outdated: list[str]) -> None:
        """What fails here is done by whoever asks for the marker."""
        try:
            with mapped(self._what):
                Publisher(self.log).finish()
                for directory in outdated:
                    self.log.storage.delete_dir(directory)
        except SinkError as error:
            raise CommitUnknownError(f"{error.message}; ask for the marker") from None

    def _outdated(self, state: StreamState) -> list[str]:
        """Stages that nobody can commit any more once the first commit of this run is there.

        To be asked before it is: what others stage on top of it is not among them.
        """
        if self.marker.sequence > 1:
            return []
        storage, paths = self.log.storage, self.log.paths
        own = self.target.stream_directory
        with mapped(self._what):
            generations = storage.names(paths.stage(own))
        old = [f"{own}/{one}" for one in generations if one != self.target.generation]
        return [paths.stage(one) for one in (*old, *(file.stage for file in state.loading))]

    def _entry(self, latest: LogEntry, state: StreamState, files: list[RawFile]) -> LogEntry:
        version = latest.version + 1
        begun = state.marker is not None and state.marker.run_id == self.marker.run_id
        loading = state.loading if begun else ()
        shown = self.mode.shows_each_commit or (
            begun and state.marker is not None and state.marker.published
        )
        added: tuple[RawFile, ...] = ()
        if shown:
            added = tuple(files)
        elif self.marker.published:
            added, loading = (*loading, *files), ()
        else:
            loading = (*loading, *files)
        replaces = not shown and self.marker.published
        listed: tuple[RawFile, ...] | None = () if replaces else None
        if listed is None and version % LISTED_EVERY == 0:
            with mapped(self._what):
                listed = tuple(self.log.files_at(latest.version))
        after = StreamState(
            marker=self.marker,
            runs=runs_after(state.marker, state.runs, self.marker),
            loading=loading,
        )
        return latest.model_copy(
            update={
                "version": version,
                "token": new_token(),
                "streams": {**latest.streams, self.target.stream: after},
                "added": tuple(one.model_copy(update={"load": version}) for one in added),
                "listed": listed,
                "replaces": replaces,
            }
        )


def files_of(receipts: Sequence[WriteReceipt]) -> list[RawFile]:
    """The files of receipts, in the order of their slices."""
    found: list[RawFile] = []
    for receipt in sorted(receipts, key=lambda one: one.sequence):
        files = receipt.payload["files"]
        assert isinstance(files, list)  # noqa: S101 - written by this sink's writer
        found += [RawFile.from_json(one) for one in files if isinstance(one, dict)]
    return found
