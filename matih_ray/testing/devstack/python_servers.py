"""Test servers in Python whose dependencies contradict ours: an environment of its own for each.

What an environment holds is pinned with hashes in `servers/<name>.txt`. It is made on first use and
kept in the user's cache. A Python environment knows its own path and cannot be renamed, so it is
made in place, under a lock, and a marker that is written last says that it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# A cold cache downloads some hundred megabytes.
INSTALL_TIMEOUT_S = 600.0
# They import DuckDB and a web framework first, on two busy cores.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 2.0
POLL_S = 0.05

_SERVERS = Path(__file__).with_name("servers")
_MARKER = ".complete"
# The lists are complete, and what they hold may contradict what a package asks for.
_HASHED = ("--require-hashes", "--no-deps")
_BUILT = ("--only-binary", ":all:")


def environment(name: str, prepare: str = "pass", *, with_sources: bool = False) -> Path:
    """The directory with the programs of the environment `servers/<name>.txt`, made if need be.

    `prepare` is Python that runs in it once, after the installation. With `with_sources` packages
    may be built here, which only those without a wheel need.

    Raises:
        RuntimeError: It could not be made; carries the end of what the installer said.
    """
    pinned = _SERVERS / f"{name}.txt"
    # another Python needs other wheels
    facts = f"{sys.executable}\n{sys.version}\n{prepare}\n".encode() + pinned.read_bytes()
    directory = _cache() / f"{name}-{hashlib.sha256(facts).hexdigest()[:16]}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, by a crash too
        if not (directory / _MARKER).exists():
            shutil.rmtree(directory, ignore_errors=True)
            _make(directory, pinned, () if with_sources else _BUILT)
            _run([str(directory / "bin" / "python"), "-c", prepare])
            (directory / _MARKER).touch()
    return directory / "bin"


class PythonServer:
    """A program of such an environment.

    Once it is up, `url` answers over HTTP, with any status, and all `ports` of 127.0.0.1 accept.
    """

    def __init__(self, programs: Path, url: str, *ports: int) -> None:
        self._programs = programs
        self._url = url
        self._ports = ports
        self._directory = Path(tempfile.mkdtemp(prefix="matih-python-server-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, program: str, *arguments: str) -> None:
        """Start it in an empty directory of its own and wait until it answers.

        Raises:
            RuntimeError: It did not start; carries the end of its log.
        """
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                env={**os.environ, "DO_NOT_TRACK": "1"},
                start_new_session=True,  # Ctrl-C is for whoever started us, who then stops it
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{program} did not start: {tail}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server and delete its directory; harmless when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            for port in self._ports:
                socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S).close()
            with urllib.request.urlopen(self._url, timeout=ANSWER_TIMEOUT_S):  # noqa: S310 - ours
                return True
        except urllib.error.HTTPError as answer:
            answer.close()
            return True
        except OSError:
            return False


def _make(directory: Path, pinned: Path, allowed: tuple[str, ...]) -> None:
    """With uv where it is at hand, which takes seconds, otherwise with venv and pip."""
    python = str(directory / "bin" / "python")
    wanted = (*_HASHED, *allowed, "-r", str(pinned))
    if uv := _uv():
        _run([*uv, "venv", "--quiet", "--python", sys.executable, str(directory)])
        _run([*uv, "pip", "install", "--quiet", "--python", python, *wanted])
    else:
        _run([sys.executable, "-m", "venv", str(directory)])
        _run([python, "-m", "pip", "install", "--quiet", *wanted])


def _uv() -> list[str] | None:
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    # where `make setup` puts it
    found = shutil.which("uv") or shutil.which("uv", path=".uv/bin")
    return None if found is None else [str(Path(found).absolute())]


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=INSTALL_TIMEOUT_S, env={"UV_SYSTEM_CERTS": "1", **os.environ},
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command[:4])} failed: {said}")


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "matih-ray" / "venvs"
