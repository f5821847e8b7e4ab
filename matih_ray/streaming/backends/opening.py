"""Which backend a job has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from matih_ray.errors import SqlNotSupportedError
from matih_ray.settings import Settings
from matih_ray.streaming.backends.base import Layout, Naming, WindowState
from matih_ray.streaming.backends.disk import DiskState
from matih_ray.streaming.backends.memory import MemoryState

Kind = Literal["memory", "disk"]
# Flink's option, and its words for the same things beside ours.
OPTION = "state.backend.type"
_KINDS: dict[str, Kind] = {
    "hashmap": "memory",
    "memory": "memory",
    "rocksdb": "disk",
    "disk": "disk",
}


@dataclass(frozen=True)
class StateBackend:
    """A backend; `directory` and `memory_bytes`, for each window operator, are for `disk`."""

    kind: Kind = "memory"
    directory: Path = Path()
    memory_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> StateBackend:
        """The backend that jobs have which ask for none."""
        return cls(
            settings.stream_state_backend,
            settings.stream_state_directory or settings.home / "stream-state",
            settings.stream_state_memory_bytes,
        )

    def named(self, text: str) -> StateBackend:
        """The backend of this name.

        Raises:
            SqlNotSupportedError: There is none.
        """
        kind = _KINDS.get(text.lower())
        if kind is None:
            raise SqlNotSupportedError(
                f"'{OPTION}' is one of {', '.join(sorted(_KINDS))}, not {text!r}", clause=OPTION
            )
        return replace(self, kind=kind)

    def open(self, layout: Layout, naming: Naming | None) -> WindowState:
        """State of an operator, which is empty."""
        if self.kind == "memory":
            return MemoryState(layout, naming)
        return DiskState(layout, naming, self.directory, self.memory_bytes)
