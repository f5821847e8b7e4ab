"""Checkpoints on a filesystem: a directory for each, whole once its `_metadata` is there.

`_metadata` is JSON for people and programs: positions, watermarks, the commit that belongs to it.
Operators' tables are Arrow files beside it. It is written last, under another name first, so that a
checkpoint that was being written when a process died is none. A savepoint is the same, in a
directory that nobody cleans up.

Runs of state that operators have in files were put into `shared-<epoch>` before; checkpoints name
them, and they are removed when none does. A savepoint has its own.

Names begin with the owner's epoch: of two owners of one job, the later one's come first, whatever
the earlier one goes on writing.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from matih_ray.errors import ConfigurationError, ConflictError, NotFoundError, StateError
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import JsonValue, Value
from matih_ray.streaming.backends.runs import Run
from matih_ray.streaming.operators import State
from matih_ray.streaming.storage import filesystem_of, mapped, transfer

FORMAT = 1
METADATA = "_metadata"
# The last ones, so that one that turns out to be broken is not the end.
KEPT = 3
_SHARED = re.compile(r"shared-(\d{9})")
_NAME = re.compile(r"chk-(\d{9})-(\d{9})-[0-9a-f]{8}")


class TableFile(Value):
    """An Arrow file of an operator's state."""

    file: str
    rows: int
    bytes: int


class Part(Value):
    """The state of one part of the pipeline."""

    value: JsonValue = None
    tables: dict[str, TableFile] = {}
    runs: tuple[Run, ...] = ()  # their files by paths from the checkpoints' directory


class Metadata(Value):
    """A checkpoint. `commit` is what must be committed before a job goes on from it, None if its
    rows are committed; then the target carries `marker`, and `before` until then."""

    format: int = FORMAT
    job_id: str
    epoch: int
    number: int
    created_at: datetime
    plan: tuple[str, ...]
    parts: dict[str, Part] = {}
    commit: JsonValue = None
    marker: CommitMarker | None = None
    before: CommitMarker | None = None
    counts: dict[str, int] = {}

    @property
    def state_bytes(self) -> int:
        """Size of all tables and runs."""
        tables = sum(one.bytes for part in self.parts.values() for one in part.tables.values())
        return tables + sum(self.runs.values())

    @property
    def runs(self) -> dict[str, int]:
        """The size of each file of runs."""
        return {run.file: run.bytes for part in self.parts.values() for run in part.runs}


@dataclass(frozen=True)
class Name:
    """A checkpoint's directory; later ones are greater."""

    epoch: int
    number: int
    text: str


class CheckpointDirectory:
    """The checkpoints of one job below a URI or a local path."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._files, self._root = filesystem_of(self.uri)

    def claim(self) -> int:
        """An epoch that nobody else has. For directories of this machine, without a job record.

        Raises:
            ConfigurationError: The directory is elsewhere, where nothing can be claimed.
        """
        if not isinstance(self._files, pyarrow.fs.LocalFileSystem):
            raise ConfigurationError(
                f"{self.uri} cannot tell two owners apart; start the script as a job instead"
            )
        root = Path(self._root)
        root.mkdir(parents=True, exist_ok=True)
        claimed = [int(one.name[6:]) for one in root.glob("epoch-*") if one.name[6:].isdigit()]
        epoch = max([*claimed, *(name.epoch for name in self.names())], default=0) + 1
        try:
            os.close(os.open(root / f"epoch-{epoch}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            raise ConflictError(f"another process has just started with {self.uri}") from None
        for old in claimed:
            (root / f"epoch-{old}").unlink(missing_ok=True)
        return epoch

    def names(self) -> list[Name]:
        """All checkpoints that were begun, the latest first."""
        with mapped(f"list {self.uri}"):
            found = self._files.get_file_info(
                pyarrow.fs.FileSelector(self._root, allow_not_found=True)
            )
        names = [
            Name(int(match[1]), int(match[2]), match[0])
            for one in found
            if (match := _NAME.fullmatch(one.base_name))
        ]
        return sorted(names, key=lambda name: (name.epoch, name.number), reverse=True)

    def metadata(self, name: Name) -> Metadata | None:
        """A checkpoint's metadata, None if it was not finished."""
        return _metadata(self._files, f"{self._root}/{name.text}")

    def states(self, name: Name, metadata: Metadata) -> dict[str, State]:
        """The states that a checkpoint holds."""
        return _states(self._files, f"{self._root}/{name.text}", self.uri, metadata)

    def shared(self, epoch: int) -> str:
        """Where an owner's runs of state go."""
        return f"{self.uri}/shared-{epoch:09d}"

    def write(self, metadata: Metadata, states: dict[str, State]) -> Metadata:
        """Write a checkpoint; it is durable when this returns."""
        text = f"chk-{metadata.epoch:09d}-{metadata.number:09d}-{uuid.uuid4().hex[:8]}"
        return _write(self._files, f"{self._root}/{text}", self.uri, metadata, states)

    def forget(self, epoch: int) -> None:
        """Remove all but the last checkpoints; those of later owners are none of ours."""
        mine = [name for name in self.names() if name.epoch <= epoch]
        for name in mine[KEPT:]:
            with mapped(f"remove {name.text}"):
                # without its metadata first, so that half of it is none
                info = self._files.get_file_info(f"{self._root}/{name.text}/{METADATA}")
                if info.type == pyarrow.fs.FileType.File:
                    self._files.delete_file(info.path)
                self._files.delete_dir(f"{self._root}/{name.text}")
        self._forget_runs(epoch)

    def _forget_runs(self, epoch: int) -> None:
        """Remove runs that no checkpoint names. Later owners' may be named soon."""
        with mapped(f"list {self.uri}"):
            found = self._files.get_file_info(pyarrow.fs.FileSelector(self._root))
            mine = [
                one.path
                for one in found
                if (match := _SHARED.fullmatch(one.base_name)) and int(match[1]) <= epoch
            ]
            files = [
                one.path
                for path in mine
                for one in self._files.get_file_info(pyarrow.fs.FileSelector(path))
            ]
        if not files:
            return
        kept = [self.metadata(name) for name in self.names()]
        named = {f"{self._root}/{file}" for one in kept if one is not None for file in one.runs}
        for path in files:
            if path not in named:
                with mapped(f"remove {path}"):
                    self._files.delete_file(path)


def write_savepoint(uri: str, metadata: Metadata, states: dict[str, State]) -> str:
    """Write a savepoint below a directory; returns where it is.

    Raises:
        StateError: It cannot be written.
    """
    where = f"{uri.rstrip('/')}/savepoint-{metadata.job_id[:6]}-{uuid.uuid4().hex[:12]}"
    files, root = filesystem_of(where)
    own = {name: replace(one, runs=_taken(one.runs, where)) for name, one in states.items()}
    _write(files, root, where, metadata, own)
    return where


def _taken(runs: tuple[Run, ...], where: str) -> tuple[Run, ...]:
    """Runs with files of their own below a directory."""
    found = []
    for run in runs:
        own = run.model_copy(update={"file": f"{where}/{run.name}"})
        transfer(run.file, own.file)
        found.append(own)
    return tuple(found)


def read_savepoint(uri: str) -> tuple[Metadata, dict[str, State]]:
    """A savepoint or checkpoint by its path.

    Raises:
        NotFoundError: There is none.
        StateError: It cannot be read.
    """
    uri = uri.rstrip("/")
    files, root = filesystem_of(uri)
    metadata = _metadata(files, root)
    if metadata is None:
        raise NotFoundError(f"there is no savepoint at {uri}", path=uri)
    # a checkpoint's runs are beside it, a savepoint's within
    base = uri.rpartition("/")[0] if _NAME.fullmatch(uri.rpartition("/")[2]) else uri
    return metadata, _states(files, root, base, metadata)


def _write(
    files: pyarrow.fs.FileSystem,
    root: str,
    base: str,
    metadata: Metadata,
    states: dict[str, State],
) -> Metadata:
    """Write what is in memory; files of runs are below `base` already."""
    with mapped(f"write checkpoint {root}"):
        files.create_dir(root, recursive=True)
        parts = {name: _part(files, root, base, name, state) for name, state in states.items()}
        metadata = metadata.model_copy(update={"parts": parts})
        text = metadata.model_dump_json(by_alias=True, indent=1).encode()
        with files.open_output_stream(f"{root}/.{METADATA}") as stream:
            stream.write(text)
        files.move(f"{root}/.{METADATA}", f"{root}/{METADATA}")
    return metadata


def _part(files: pyarrow.fs.FileSystem, root: str, base: str, name: str, state: State) -> Part:
    tables = {}
    for number, (key, table) in enumerate(state.tables.items()):
        file = f"{name}-{number}.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with files.open_output_stream(f"{root}/{file}") as stream:
            with pa.ipc.new_file(stream, table.schema, options=options) as writer:
                writer.write_table(table)
            size = stream.tell()
        tables[key] = TableFile(file=file, rows=table.num_rows, bytes=size)
    runs = (
        run.model_copy(update={"file": run.file.removeprefix(f"{base}/")}) for run in state.runs
    )
    return Part(value=state.value, tables=tables, runs=tuple(runs))


def _metadata(files: pyarrow.fs.FileSystem, root: str) -> Metadata | None:
    with mapped(f"read checkpoint {root}"):
        info = files.get_file_info(f"{root}/{METADATA}")
        if info.type != pyarrow.fs.FileType.File:
            return None
        with files.open_input_stream(info.path) as stream:
            text = stream.read()
    found = Metadata.from_json(text)
    if found.format != FORMAT:
        raise StateError(f"{root} has format {found.format}; this software reads {FORMAT}")
    return found


def _states(
    files: pyarrow.fs.FileSystem, root: str, base: str, metadata: Metadata
) -> dict[str, State]:
    """What is in memory, and where the runs are."""
    states = {}
    for name, part in metadata.parts.items():
        tables = {}
        for key, file in part.tables.items():
            path = f"{root}/{file.file}"
            with mapped(f"read {path}"), files.open_input_file(path) as stream:
                tables[key] = pa.ipc.open_file(stream).read_all()
            if tables[key].num_rows != file.rows:
                raise StateError(f"{root}/{file.file} does not hold the rows it should")
        runs = (run.model_copy(update={"file": f"{base}/{run.file}"}) for run in part.runs)
        states[name] = State(tables, part.value, tuple(runs))
    return states


def now() -> datetime:
    """The time of a checkpoint."""
    return datetime.now(timezone.utc)
