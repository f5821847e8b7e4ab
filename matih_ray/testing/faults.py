"""Faults as data: files in `<home>/faults` say at which step a process dies or stops.

`settings.step_listener = "matih_ray.testing.faults:obey"` makes every process of a runtime look
for a file named after the step it has reached. The file is removed by the process that obeys it,
so each fault happens once, in whichever process gets there first. All steps go to a journal, from
which a test can tell what was read again.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from matih_ray.execution.steps import Step
from matih_ray.settings import Settings

LISTENER = "matih_ray.testing.faults:obey"
KILL = "KILL"
STOP = "STOP"


@dataclass(frozen=True)
class JournalEntry:
    """One reached step. `pid` is the process that reached it."""

    pid: int
    step: Step
    run_id: str
    detail: str


@dataclass(frozen=True)
class Faults:
    """Arms faults of a runtime and reads its journal."""

    home: Path

    @property
    def directory(self) -> Path:
        """Where faults and the journal are."""
        return self.home / "faults"

    def arm(self, step: Step, action: str = KILL, *, after: int = 0) -> None:
        """Let a process be killed (or stopped) the next time it reaches `step`.

        `after` lets that many processes pass first.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for number in range(after):
            (self.directory / f"{step.value}.pass{number}").touch()
        (self.directory / step.value).write_text(action)

    def is_armed(self, step: Step) -> bool:
        """The fault has not happened yet."""
        return (self.directory / step.value).exists()

    def clear(self) -> None:
        """Disarm all faults and forget the journal."""
        if self.directory.exists():
            for path in self.directory.iterdir():
                path.unlink()

    def journal(self, run_id: str) -> list[JournalEntry]:
        """Steps of a run in the order they were reached."""
        path = self.directory / "journal"
        entries = []
        for line in path.read_text().splitlines() if path.exists() else []:
            pid, step, run, detail = line.split("\t")
            if run == run_id:
                entries.append(JournalEntry(int(pid), Step(step), run, detail))
        return entries


def obey(settings: Settings, step: Step, run_id: str, detail: str) -> None:
    """Write the step to the journal, and die or stop if a fault is armed for it."""
    directory = settings.home / "faults"
    if not directory.exists():
        return
    with (directory / "journal").open("a") as journal:
        journal.write(f"{os.getpid()}\t{step.value}\t{run_id}\t{detail}\n")
    for path in sorted(directory.glob(f"{step.value}.pass*")):
        if _claim(path) is not None:
            return
    action = _claim(directory / step.value)
    if action is not None:
        os.kill(os.getpid(), signal.SIGSTOP if action == STOP else signal.SIGKILL)


def _claim(path: Path) -> str | None:
    """Take a fault for this process; None when there is none or another process took it."""
    # Its name must not begin with the step's: to others it would look like one more file to take.
    taken = path.with_name(f"taken.{path.name}.{os.getpid()}")
    try:
        path.rename(taken)
    except FileNotFoundError:
        return None
    action = taken.read_text()
    taken.unlink()
    return action
