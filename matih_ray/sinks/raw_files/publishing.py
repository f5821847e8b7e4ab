"""Publishing: the files of a commit go to where readers look; anybody may do it, again and again.

Where directories can be renamed, the files of a commit are gathered in a hidden one, which then
becomes the load in one step. Elsewhere each object is copied to its name and then deleted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from matih_ray.errors import SinkError
from matih_ray.sinks.raw_files.log import LISTED_EVERY, LOAD, CommitLog, LogEntry, RawFile

# Copies at a time: each is a request whose work is the store's.
COPIES = 8


@dataclass(frozen=True)
class Publisher:
    """Finishes commits of one table."""

    log: CommitLog

    def finish(self) -> LogEntry | None:
        """Publish every commit that is not, in order; the last entry, if there is a table.

        Raises:
            SinkError: A file is neither where it was written nor where it belongs.
        """
        versions, done = self.log.versions()
        if not versions:
            return None
        # entries are published in order, so that those before the last one that is done are done
        last_done = max(done, default=0)
        latest: LogEntry | None = None
        for version in versions:
            if version > last_done:
                latest = self.log.entry(version)
                self._publish(latest)
        return latest or self.log.entry(versions[-1])

    def _publish(self, entry: LogEntry) -> None:
        if entry.added:
            if self.log.storage.renames:
                self._gather(entry)
            else:
                with ThreadPoolExecutor(COPIES) as copies:
                    list(copies.map(self._copy, entry.added))
        self.log.mark_done(entry.version)
        if entry.replaces:
            self._remove_before(entry.version)
        if entry.version % LISTED_EVERY == 0:
            self.log.forget_before(entry.version)

    def _gather(self, entry: LogEntry) -> None:
        storage, paths = self.log.storage, self.log.paths
        load = paths.load(entry.version)
        gathered = f"{paths.hidden}/gathered/{entry.version}"
        for file in entry.added:
            if storage.exists(load):
                break
            target = f"{gathered}/{file.path}"
            staged = f"{paths.stage(file.stage)}/{file.path}"
            if not storage.move(staged, target) and not storage.exists(target):
                break  # somebody else has just renamed the directory, or it is lost: see below
        if not storage.exists(load):
            try:
                storage.move(gathered, load)
            except OSError:
                if not storage.exists(load):
                    raise
        for file in entry.added:
            if not storage.exists(f"{paths.table}/{file.name}"):
                raise self._lost(file)
        storage.delete_dir(gathered)

    def _copy(self, file: RawFile) -> None:
        storage, paths = self.log.storage, self.log.paths
        target = f"{paths.table}/{file.name}"
        moved = storage.move(f"{paths.stage(file.stage)}/{file.path}", target)
        if not moved and not storage.exists(target):
            raise self._lost(file)

    def _remove_before(self, version: int) -> None:
        storage, paths = self.log.storage, self.log.paths
        for name in storage.names(paths.table):
            key, _, digits = name.partition("=")
            if key == LOAD and digits.isdigit() and int(digits) < version:
                storage.delete_dir(f"{paths.table}/{name}")

    def _lost(self, file: RawFile) -> SinkError:
        return SinkError(
            f"{self.log.paths.table}: the file {file.path} of commit {file.load} is neither staged "
            "nor published; somebody has deleted it, and only a new full load brings it back",
            path=file.path,
        )
