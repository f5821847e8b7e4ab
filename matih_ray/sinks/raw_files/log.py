"""The log of a table: numbered files, each a commit, and what they add up to.

Each entry repeats what the next commit must know (markers, staged overwrites, columns), so that the
last one is enough to judge a marker. What readers see is the sum of the entries since the last one
that lists it whole: an overwrite's, or every `LISTED_EVERY`th.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from matih_ray.errors import FencedError, SinkError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import RunId
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import Value
from matih_ray.sinks.iceberg.naming import safe_name
from matih_ray.sinks.raw_files.storage import Storage

HIDDEN = ".matih"
LOAD = "matih_load"
# Readers then open at most so many entries; a list of 10,000 files is about a megabyte.
LISTED_EVERY = 50
# Entries that are kept behind the last list, for readers that are under way.
KEPT = 4 * LISTED_EVERY
_DIGITS = 10
_ENTRY, _DONE = ".json", ".done"


class RawFile(Value):
    """One Parquet file: where it was written, below a stage, and where it is, below a load."""

    stage: str
    path: str
    rows: int
    bytes: int
    load: int | None = None

    @property
    def name(self) -> str:
        """Path below the table's directory.

        Raises:
            SinkError: It is not committed.
        """
        if self.load is None:
            raise SinkError(f"file {self.path} is not committed")
        return f"{load_name(self.load)}/{self.path}"


class StreamState(Value):
    """What a table knows of one stream: its marker, the runs before it, and an overwrite's files
    that are committed and not published."""

    marker: CommitMarker | None = None
    runs: tuple[RunId, ...] = ()
    loading: tuple[RawFile, ...] = ()


class LogEntry(Value):
    """One commit. `listed` are the files of earlier commits that readers see, where the entry says
    so; `replaces` that it has taken the place of all of them. `token` tells whose it is."""

    version: int
    table_id: str
    token: str
    arrow_schema: str
    streams: dict[str, StreamState] = {}
    added: tuple[RawFile, ...] = ()
    listed: tuple[RawFile, ...] | None = None
    replaces: bool = False


@dataclass(frozen=True)
class TablePaths:
    """Where a table's parts are, below the location."""

    table: str

    @classmethod
    def of(cls, path: tuple[str, ...]) -> TablePaths:
        """Those of a target's path. Raises `ValidationError` for an empty part."""
        return cls("/".join(safe_name(part) for part in path))

    @property
    def hidden(self) -> str:
        """What is no data."""
        return f"{HIDDEN}/{self.table}"

    @property
    def log(self) -> str:
        """The commits."""
        return f"{self.hidden}/log"

    def load(self, version: int) -> str:
        """The directory of a commit's files."""
        return f"{self.table}/{load_name(version)}"

    def stage(self, stage: str) -> str:
        """The directory of what one attempt of a slice has written."""
        return f"{self.hidden}/staged/{stage}"


def load_name(version: int) -> str:
    """The directory of a load, as a partition in Hive's form."""
    return f"{LOAD}={version:0{_DIGITS}d}"


@dataclass(frozen=True)
class CommitLog:
    """The log of one table."""

    storage: Storage
    paths: TablePaths

    def versions(self) -> tuple[list[int], set[int]]:
        """The numbers of all entries in order, and those whose files are where readers look."""
        names = self.storage.names(self.paths.log)
        entries = [_number(name) for name in names if name.endswith(_ENTRY)]
        done = {_number(name) for name in names if name.endswith(_DONE)}
        return [one for one in entries if one > 0], done

    def latest(self) -> LogEntry | None:
        """The last entry, None for a table that is not there."""
        versions, _ = self.versions()
        return self.entry(versions[-1]) if versions else None

    def entry(self, version: int) -> LogEntry:
        """One entry. Raises `SinkError` if it is gone."""
        data = self.storage.read(self._entry(version))
        if data is None:
            raise SinkError(f"commit {version} of {self.paths.table} is gone from its log")
        return LogEntry.from_json(data)

    def append(self, entry: LogEntry) -> bool:
        """Add the entry, if nobody has added one of its number."""
        return self.storage.create(self._entry(entry.version), entry.to_json().encode())

    def mark_done(self, version: int) -> None:
        """Note that an entry's files are where readers look."""
        self.storage.write(f"{self.paths.log}/{version:0{_DIGITS}d}{_DONE}", b"")

    def published(self) -> list[RawFile]:
        """What readers see: the files of all commits up to the last whose files are in place."""
        versions, done = self.versions()
        ready = [version for version in versions if version in done]
        return self.files_at(ready[-1]) if ready else []

    def files_at(self, version: int) -> list[RawFile]:
        """What readers see once the entry of this number is published."""
        parts: list[tuple[RawFile, ...]] = []
        for entry in self._back_from(version):
            parts.append(entry.added)
            if entry.listed is not None:
                parts.append(entry.listed)
                break
        return [file for part in reversed(parts) for file in part]

    def forget_before(self, version: int) -> None:
        """Delete entries that neither readers nor committers need any more."""
        versions, done = self.versions()
        for old in versions:
            if old < version - KEPT:
                self.storage.delete_file(self._entry(old))
                if old in done:
                    self.storage.delete_file(f"{self.paths.log}/{old:0{_DIGITS}d}{_DONE}")

    def _back_from(self, version: int) -> Iterator[LogEntry]:
        for number in range(version, 0, -1):
            yield self.entry(number)

    def _entry(self, version: int) -> str:
        return f"{self.paths.log}/{version:0{_DIGITS}d}{_ENTRY}"


def new_token() -> str:
    """A name that nobody else gives."""
    return uuid.uuid4().hex


def check_is(entry: LogEntry | None, table_id: str, name: str) -> LogEntry:
    """The entry, if it is of the table that was prepared; else `FencedError`."""
    if entry is None or entry.table_id != table_id:
        raise FencedError(
            f"table {name} was dropped and created again since this run prepared; start a new run",
            table=name,
        )
    return entry


def stream_name(stream: StreamKey) -> str:
    """The key of a stream in a table's log."""
    return f"{stream.tenant_id}/{stream.kv_key()}"


def _number(name: str) -> int:
    digits = name.partition(".")[0]
    return int(digits) if digits.isdigit() else 0
