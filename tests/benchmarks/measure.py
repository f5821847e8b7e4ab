"""Wall time, CPU time and memory of process trees, from /proc.

Memory of a tree is what the machine would get back if the tree vanished: the anonymous memory of
each process, the shared-memory files that any of them holds open (Ray's object store) once each,
and the proportional share of mapped files. Adding up resident sizes instead would count the object
store once per worker; private sizes alone would not count it at all.

Whoever is measured pays for being looked at, the more the more processes it has: what is read ten
times a second is little, and what takes longer (who there is, which files they hold) once a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.1
# New processes and files are seen so many samples later.
SAMPLES_PER_LISTING = 10
MB = 1_000_000
RAYLET = "raylet"


@dataclass(frozen=True)
class Process:
    """One process at its largest: what it had in memory, and what of that was its alone."""

    name: str
    resident_bytes: int
    own_bytes: int


@dataclass(frozen=True)
class Usage:
    """What one measured piece of work took."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    peak_bytes: int
    shared_bytes: int
    largest: Process

    def report(self, rows: int) -> dict[str, float | int | str]:
        """The values for people and JSON."""
        return {
            "wall_s": round(self.wall_s, 3),
            "cpu_s": round(self.cpu_s, 2),
            "server_cpu_s": round(self.server_cpu_s, 2),
            "peak_mb": round(self.peak_bytes / MB),
            "object_store_mb": round(self.shared_bytes / MB),
            "largest_process_mb": round(self.largest.resident_bytes / MB),
            "largest_process_own_mb": round(self.largest.own_bytes / MB),
            "largest_process": self.largest.name,
            "rows_per_s": round(rows / self.wall_s),
            "rows_per_cpu_s": round(rows / max(self.cpu_s + self.server_cpu_s, 0.01)),
        }


def median(usages: Iterable[Usage]) -> Usage:
    """Median times, and the memory of the worst."""
    ordered = list(usages)
    return Usage(
        wall_s=statistics.median(usage.wall_s for usage in ordered),
        cpu_s=statistics.median(usage.cpu_s for usage in ordered),
        server_cpu_s=statistics.median(usage.server_cpu_s for usage in ordered),
        peak_bytes=max(usage.peak_bytes for usage in ordered),
        shared_bytes=max(usage.shared_bytes for usage in ordered),
        largest=max((usage.largest for usage in ordered), key=lambda one: one.resident_bytes),
    )


class Meter:
    """Measures process trees and the server's CPU time, from `with` to its end."""

    def __init__(self, server: int, *roots: int) -> None:
        self._server = server
        self._roots = list(roots)
        self._lasting = len(roots)
        self.usage: Usage

    def run(self, command: list[str], *, env: Mapping[str, str] | None = None) -> str:
        """Run a command as one of the measured trees and return its output."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        self._roots.append(process.pid)
        output, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
        return output

    def __enter__(self) -> Meter:
        self._done = threading.Event()
        self._peak = self._shared = 0
        self._largest = Process("", 0, 0)
        self._mapped = mapped_files_bytes(self._roots)
        self._before = self._cpu_s()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        wall_s = time.perf_counter() - self._start
        after = self._cpu_s()
        self._done.set()
        self._thread.join()
        self.usage = Usage(
            wall_s=wall_s,
            cpu_s=after[0] - self._before[0],
            server_cpu_s=after[1] - self._before[1],
            peak_bytes=self._peak + max(self._mapped, mapped_files_bytes(self._roots)),
            shared_bytes=self._shared,
            largest=self._largest,
        )

    def _cpu_s(self) -> tuple[float, float]:
        """CPU seconds of the trees, those that have ended by now included, and of the server."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (
            cpu_s(self._roots) + ended.ru_utime + ended.ru_stime,
            cpu_s([self._server]),
        )

    def _sample(self) -> None:
        processes: list[psutil.Process] = []
        files: list[str] = []
        count = 0
        while not self._done.is_set():
            if count % SAMPLES_PER_LISTING == 0:
                processes = tree(self._roots)
                files = _shared_files(processes)
                # trees that outlive this are looked at before and after it, commands meanwhile
                commands = self._roots[self._lasting :]
                self._mapped = max(self._mapped, mapped_files_bytes(commands))
            count += 1
            anonymous = 0
            for process in processes:
                size = _sizes(process.pid)
                anonymous += size.anonymous
                # the raylet has all of the object store mapped, which is reported for itself
                resident = size.resident - (size.shared if size.name == RAYLET else 0)
                if resident > self._largest.resident_bytes:
                    self._largest = Process(_title(process), resident, size.anonymous)
            shared = sum(map(_allocated_bytes, files))
            self._shared = max(self._shared, shared)
            self._peak = max(self._peak, anonymous + shared)
            self._done.wait(SAMPLE_S)


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    """The processes and all their descendants that are alive."""
    found: dict[int, psutil.Process] = {}
    for pid in roots:
        try:
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds so far of trees, those of finished and reaped children included."""
    total = 0.0
    for process in tree(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def mapped_files_bytes(roots: Iterable[int]) -> int:
    """Proportional size of mapped files (libraries and code) of trees; slow, so not sampled."""
    total = 0
    for process in tree(roots):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_File"))
    return total


@dataclass(frozen=True)
class Sizes:
    """A process's name and resident bytes by kind, as in /proc/PID/status."""

    name: str = ""
    resident: int = 0
    anonymous: int = 0
    shared: int = 0


# proc_pid_status(5)
_STATUS = re.compile(
    rb"Name:\t(.*)\n(?s:.*)VmRSS:\s+(\d+) kB\n"
    rb"RssAnon:\s+(\d+) kB\nRssFile:.*\nRssShmem:\s+(\d+) kB\n"
)


def _sizes(pid: int) -> Sizes:
    """Zeros when the process is gone."""
    try:
        found = _STATUS.match(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return Sizes()
    if found is None:
        return Sizes()
    resident, anonymous, shared = (int(found[place]) * 1024 for place in (2, 3, 4))
    return Sizes(found[1].decode(), resident, anonymous, shared)


def _shared_files(processes: Iterable[psutil.Process]) -> list[str]:
    """Where each shared-memory file that any of these processes holds open can be looked at."""
    found: dict[tuple[int, int], str] = {}
    for process in processes:
        descriptors = f"/proc/{process.pid}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(descriptors):  # noqa: PTH208 there are thousands of them
                path = f"{descriptors}/{name}"
                if os.readlink(path).startswith(("/dev/shm/", "/memfd:")):  # noqa: PTH115 as above
                    status = os.stat(path)  # noqa: PTH116 as above
                    found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def _allocated_bytes(path: str) -> int:
    try:
        return Path(path).stat().st_blocks * 512
    except OSError:
        return 0  # whoever held it open is gone; another one is found by the next listing


def _title(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return "gone"
    return " ".join(Path(part).name for part in command[:3])[:60].strip()
