"""A Snowflake server: fakesnow, which answers the Python connector from DuckDB, data in memory.

What it lacks: any password is right, roles and rights are not checked, and there is no TLS.
"""

from __future__ import annotations

from types import TracebackType

from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.python_servers import PythonServer, environment


class SnowflakeServer:
    """A server of our own on loopback, over plain HTTP."""

    def __init__(self) -> None:
        """Make the environment on first use; nothing is started yet.

        Raises:
            RuntimeError: The environment could not be made.
        """
        self.host = "127.0.0.1"
        self.port = free_port()
        url = f"http://{self.host}:{self.port}/"
        self._server = PythonServer(environment("fakesnow"), url)

    def start(self) -> SnowflakeServer:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: It did not start.
        """
        self._server.start("fakesnow", "-s", "--host", self.host, "-p", str(self.port))
        return self

    def stop(self) -> None:
        """Stop the server, and with it its data; harmless when it is not running."""
        self._server.stop()

    def __enter__(self) -> SnowflakeServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
