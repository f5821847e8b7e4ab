"""A private MariaDB server from the system's own binaries; there is no wheel of one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pymysql

from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
# Debian keeps the server outside the PATH of ordinary accounts.
SYSTEM_BINARIES = "/usr/sbin:/usr/local/sbin:/usr/bin"


class MariaDbMissingError(RuntimeError):
    """The machine has no MariaDB; the message says how to install it."""


def find_program(*names: str) -> str:
    """The path of the first of these programs that exists.

    Raises:
        MariaDbMissingError: There is none.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), SYSTEM_BINARIES])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise MariaDbMissingError(f"no {names[0]} found: apt-get install mariadb-server")


class MariaDbServer:
    """A MariaDB server of our own on loopback. Superuser `root`, without a password."""

    def __init__(
        self, directory: Path | None = None, *, options: Mapping[str, str] | None = None
    ) -> None:
        """Find the binaries; nothing is started yet.

        Raises:
            MariaDbMissingError: There are none.
        """
        self._server = find_program("mariadbd", "mysqld")
        self._installer = find_program("mariadb-install-db", "mysql_install_db")
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="matih-mariadb-"))
        self.host = "127.0.0.1"
        self.port = free_port()
        self.user = "root"
        self.account = _unprivileged_account()  # that the server runs as, if not as ours
        self._process: subprocess.Popen[bytes] | None = None
        self._options = {
            "bind-address": self.host,
            "port": str(self.port),
            "socket": str(self.directory / "socket"),
            "pid-file": str(self.directory / "pid"),
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "32M",
            "innodb-flush-log-at-trx-commit": "0",
            "innodb-flush-method": "nosync",
            "sync-binlog": "0",
            "server-id": "1",
            "log-bin": "binlog",
            "binlog-format": "ROW",
            "binlog-row-image": "FULL",
            "binlog-row-metadata": "FULL",
            "skip-name-resolve": "ON",
            **(options or {}),
        }

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server wrote to its standard error."""
        return self.directory / "log"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> MariaDbServer:
        """Create the data directory on first use, start it and wait until it answers.

        Harmless when it is already running.

        Raises:
            RuntimeError: It did not start; carries the end of its log.
        """
        if self._process is not None:
            return self
        if not self.data.exists():
            self._install()
        options = [f"--{name}={value}" for name, value in self._options.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._server, "--no-defaults", f"--datadir={self.data}", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for whoever started us, who then stops it
                **self._identity(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"MariaDB did not start: {tail}")
            time.sleep(POLL_S)
        return self

    def stop(self) -> None:
        """Stop the server in order; harmless when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as when the machine is lost; `start` brings it back with its data."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Stop and delete the data, if the directory is our own."""
        self.kill()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def connect(self, database: str | None = None, *, autocommit: bool = True) -> Any:
        """A superuser connection (PyMySQL)."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            database=database,
            charset="utf8mb4",
            autocommit=autocommit,
            connect_timeout=5,
        )

    def execute(self, *statements: str, database: str | None = None) -> list[tuple[object, ...]]:
        """Run statements as superuser in a connection of their own; the rows of the last one."""
        rows: list[tuple[object, ...]] = []
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    def _install(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            os.chown(self.directory, self.account.pw_uid, self.account.pw_gid)
            self.directory.chmod(0o755)
        result = subprocess.run(
            [
                self._installer,
                "--no-defaults",
                f"--datadir={self.data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            **self._identity(),
        )
        if result.returncode != 0:
            raise RuntimeError(f"mariadb-install-db failed: {result.stdout[-2000:]}")

    def _identity(self) -> dict[str, Any]:
        account = self.account
        if account is None:
            return {}
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> MariaDbServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def _unprivileged_account() -> pwd.struct_passwd | None:
    """The account to run as when we are root, which MariaDB refuses; None when we are not."""
    if os.getuid() != 0:
        return None
    for name in ("mysql", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("running as root and there is no account to run MariaDB as")
