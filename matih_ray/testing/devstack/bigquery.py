"""A BigQuery server: bqemulator, which answers Google's clients from DuckDB, data in memory.

What it lacks: credentials and rights are not checked, there is no TLS, and tables say that they
have no rows.
"""

from __future__ import annotations

from types import TracebackType

from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.python_servers import PythonServer, environment

# Installed as a wheel, it has to be put where DuckDB looks.
_PREPARE = "import duckdb_extensions; duckdb_extensions.import_extension('spatial')"


class BigQueryServer:
    """A server of our own on loopback: REST at `port`, the Storage Read API at `grpc_port`."""

    def __init__(self) -> None:
        """Make the environment on first use; nothing is started yet.

        Raises:
            RuntimeError: The environment could not be made.
        """
        self.host = "127.0.0.1"
        self.port = free_port()
        self.grpc_port = free_port()
        url = f"http://{self.host}:{self.port}/"
        self._server = PythonServer(environment("bqemulator", _PREPARE), url, self.grpc_port)

    def start(self) -> BigQueryServer:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: It did not start.
        """
        ports = ("--rest-port", str(self.port), "--grpc-port", str(self.grpc_port))
        self._server.start("bqemulator", "start", *ports)
        return self

    def stop(self) -> None:
        """Stop the server, and with it its data; harmless when it is not running."""
        self._server.stop()

    def __enter__(self) -> BigQueryServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
