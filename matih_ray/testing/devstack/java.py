"""Test servers in Java: libraries fetched once by Maven, and one small program each beside us.

Maven is asked, and not some address, because it knows its own repositories and mirrors. What it
fetched is kept in the user's cache. Only pinned versions whose SHA-256 is written down here are
ever started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

# A cold cache fetches Maven's own plugins too.
FETCH_TIMEOUT_S = 300.0
# Java starts in a second, and compiles the program before; two busy cores take longer.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
# Enough for a million small documents, and little enough for several servers on one machine.
HEAP = "-Xmx512m"

_PROJECT = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>matih</groupId><artifactId>devstack</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
    "<classifier>{}</classifier></dependency>"
)
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


@dataclass(frozen=True)
class JavaLibrary:
    """A library; `checksums` is the file beside us that lists all it needs at run time, as
    `sha256sum` writes it. `more` are others beside it: `group:artifact:version[:classifier]`."""

    group: str
    artifact: str
    version: str
    checksums: str
    more: tuple[str, ...] = ()

    def dependencies(self) -> str:
        """The library and the others as Maven writes them."""
        named = [(self.group, self.artifact, self.version), *(m.split(":") for m in self.more)]
        return "".join(_DEPENDENCY.format(*(*one, "")[:4]) for one in named)

    def sha256(self) -> dict[str, str]:
        """Checksums by file name."""
        lines = Path(__file__).with_name(self.checksums).read_text().splitlines()
        return {name: digest for digest, name in (line.split() for line in lines)}


def find_java() -> str:
    """The path of `java`.

    Raises:
        RuntimeError: There is none.
    """
    if path := shutil.which("java"):
        return path
    raise RuntimeError("no Java found: install a JDK, 17 or newer")


class JavaServer:
    """A program that prints `ready` once it listens, and ends when its standard input does."""

    def __init__(self, program: str, library: JavaLibrary, *options: str) -> None:
        self._program = Path(__file__).with_name(program)
        self._library = library
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkdtemp(prefix="matih-java-")) / "log"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *arguments: str, stdin: str = "") -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: Java or Maven is missing, or the server did not start.
        """
        files = installed(self._library)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    find_java(), HEAP, "-XX:+UseSerialGC", f"-Djava.library.path={files}",
                    *self._options, "-cp", str(files / "*"), str(self._program), *arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(stdin.encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not any(line == b"ready" for line in self._log.read_bytes().splitlines()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self._program.stem} did not start: {self._log.read_text()}")
            time.sleep(0.02)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process is not None, "not started"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """End the server as a crash would; what it held in memory is gone."""
        assert self._process is not None, "not started"
        self._process.kill()
        self.stop()

    def open_connections(self) -> int:
        """Connections that clients have open, by the operating system's count."""
        found = psutil.Process(self.pid).net_connections(kind="tcp")
        return sum(c.status == psutil.CONN_ESTABLISHED for c in found)


def installed(library: JavaLibrary) -> Path:
    """The directory of the library's files, fetched if they are not in the cache.

    Raises:
        RuntimeError: Maven is missing or failed, or a file is not the one that was pinned.
    """
    directory = _cache() / f"{library.artifact}-{library.version}"
    if not directory.exists():
        _fetch(library, directory)
    check(library, directory)
    return directory


def check(library: JavaLibrary, directory: Path) -> None:
    """Compare every file with its checksum.

    Raises:
        RuntimeError: A file is missing, another one, or one too many.
    """
    sha256 = library.sha256()
    if unknown := {path.name for path in directory.glob("*.jar")} - set(sha256):
        raise RuntimeError(f"{directory} has files without a checksum: {sorted(unknown)}")
    for name, expected in sha256.items():
        path = directory / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
        if found != expected:
            raise RuntimeError(f"{path} has SHA-256 {found}, not {expected}; remove {directory}")


def _fetch(library: JavaLibrary, directory: Path) -> None:
    """Fetch into a directory of our own and rename it: several processes may do so at a time."""
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError(f"{library.artifact} comes from Maven Central: install Maven")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        project = Path(temporary) / "pom.xml"
        project.write_text(_PROJECT.format(dependencies=library.dependencies()))
        files = Path(temporary) / "files"
        done = subprocess.run(
            [maven, "-q", "-B", "-f", str(project), _COPY, "-DincludeScope=runtime",
             f"-DoutputDirectory={files}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=FETCH_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"Maven could not fetch {library.artifact}: {done.stdout[-2000:]}")
        check(library, files)
        try:
            files.rename(directory)
        except OSError:
            if not directory.exists():  # otherwise another process was faster
                raise


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matih-ray" / "java"
