"""A whole runtime as a process of its own: `python -m serve_apps.local` with a private home.

For demos and benchmarks, which must see the runtime from outside: over HTTP, as a process tree.
Tests that need the ports themselves start one in their own process instead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

from matih_ray.testing.devstack.ports import free_port

# A cold machine reads a gigabyte of libraries from disk before Ray answers.
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
ORPHANS_TIMEOUT_S = 5.0
POLL_S = 0.1


class RuntimeProcess:
    """A local runtime on free ports. `log` holds what it wrote to its standard error."""

    def __init__(
        self, home: Path | None = None, *, settings: Mapping[str, str] | None = None
    ) -> None:
        self.home = home or Path(tempfile.mkdtemp(prefix="matih-home-"))
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def log(self) -> Path:
        """The runtime's standard error."""
        return self.home / "runtime.log"

    @property
    def pid(self) -> int:
        """The process that owns all the others of the runtime."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> RuntimeProcess:
        """Start it and wait until its control API answers.

        Raises:
            RuntimeError: It did not start; carries the end of its log.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MATIH_", "RAY_"))}
        answer = self.home / "runtime.out"
        with self.log.open("ab") as log, answer.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serve_apps.local"],
                env={
                    **inherited,
                    "MATIH_HOME": str(self.home),
                    "MATIH_HTTP_PORT": str(free_port()),
                    "RAY_USAGE_STATS_ENABLED": "0",
                    **{f"MATIH_{name.upper()}": value for name, value in self._settings.items()},
                },
                stdin=subprocess.DEVNULL,
                # a file and not a pipe: the runtime may outlive whoever started it
                stdout=out,
                stderr=log,
                # Ctrl-C is for whoever started us, who then stops the runtime in order
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (address := answer.read_text()).endswith("\n"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the runtime did not start: {tail}")
            time.sleep(POLL_S)
        self.url = address.splitlines()[0]
        return self

    def stop(self) -> None:
        """Stop it and all that it started; harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            stop_tree(process.pid)
            process.wait()

    def kill(self) -> None:
        """SIGKILL to every process of the runtime, as when the machine is lost."""
        process, self._process = self._process, None
        assert process is not None, "not started"
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
        process.wait()

    def __enter__(self) -> RuntimeProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def stop_tree(pid: int) -> None:
    """Ask a process to end in order, then end what is left of its descendants."""
    try:
        root = psutil.Process(pid)
        family = root.children(recursive=True)
        root.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return
    _, stuck = psutil.wait_procs([root], timeout=STOP_TIMEOUT_S)
    # Ray's agents notice only after half a minute that they are alone
    _, orphans = psutil.wait_procs(family, timeout=ORPHANS_TIMEOUT_S)
    for process in [*stuck, *orphans]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([*stuck, *orphans], timeout=STOP_TIMEOUT_S)
