"""A small Iceberg REST catalog of our own, which can lose replies on demand.

It speaks the tables part of Iceberg's REST specification with PyIceberg's own request and response
models, over a SQL catalog on SQLite. It is a process of its own, so that clients in any process
reach it, and its faults are switched through HTTP:

    with IcebergRestServer() as server:
        server.fail_next(CommitFault.APPLY_THEN_DROP)

With a `Guard` it answers only to bearers of its own tokens, which it gives for OAuth client
credentials and a scope (RFC 6749, section 4.4), and hands out credentials of the storage to clients
that ask for delegation.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.rest import (
    CreateTableRequest,
    ListNamespaceResponse,
    ListTableResponseEntry,
    ListTablesResponse,
    NamespaceResponse,
    TableResponse,
)
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest, Table
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.typedef import IcebergBaseModel
from starlette.types import Receive, Scope, Send

from matih_ray.testing.devstack.iceberg_guard import Guard, add_guard
from matih_ray.testing.devstack.ports import free_port

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
# How long after its reply a late commit is applied: longer than a client takes to look again.
LATE_S = 0.3
SEPARATOR = "\x1f"


class CommitFault(str, Enum):
    """What happens to a commit request instead of the right thing."""

    REJECT = "reject"  # 409, not applied
    FAIL = "fail"  # 500, not applied
    DROP = "drop"  # the connection breaks, not applied
    APPLY_THEN_FAIL = "apply_then_fail"  # applied, then 500
    APPLY_THEN_DROP = "apply_then_drop"  # applied, then the connection breaks
    APPLY_LATE = "apply_late"  # 504 at once, applied `LATE_S` later
    DIE = "die"  # the server is gone, not applied; `start` brings it back
    APPLY_THEN_DIE = "apply_then_die"  # applied, then the server is gone

    @property
    def applied(self) -> bool:
        """Whether the commit is applied before the reply."""
        return self.value.startswith("apply_then")

    @property
    def fatal(self) -> bool:
        """Whether the server does not survive it."""
        return self in (CommitFault.DIE, CommitFault.APPLY_THEN_DIE)


class IcebergRestServer:
    """A REST catalog on a free loopback port, with its own SQLite file and local warehouse."""

    def __init__(self, directory: Path | None = None, guard: Guard | None = None) -> None:
        self._guard = guard
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="matih-iceberg-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The catalog's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """The server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> IcebergRestServer:
        """Start the server, again if it has died, and wait until it answers."""
        self.stop()
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.directory), str(self.port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert self._process.stdin is not None
        with self._process.stdin as told:  # not the command line, which everybody sees
            told.write(json.dumps(None if self._guard is None else asdict(self._guard)).encode())
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                httpx.get(f"{self.uri}/faults").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return self
        self.stop()
        raise RuntimeError(f"no answer: {(self.directory / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def fail_next(self, fault: CommitFault, times: int = 1) -> None:
        """Let the next commit requests meet a fault; further calls queue up."""
        for _ in range(times):
            httpx.post(f"{self.uri}/faults/{fault.value}").raise_for_status()

    def expire_tokens(self) -> None:
        """No token that was given until now is good any longer."""
        httpx.delete(f"{self.uri}/tokens").raise_for_status()

    def tokens_given(self) -> int:
        """How many tokens have been given."""
        return int(httpx.get(f"{self.uri}/tokens").json())

    def __enter__(self) -> IcebergRestServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)


class _BrokenReply(Response):
    """Promises more bytes than it sends; the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": False})


def create_app(catalog: Catalog, guard: Guard | None = None) -> FastAPI:
    """The REST catalog over another catalog."""
    app = FastAPI(openapi_url=None)
    if guard is not None:
        add_guard(app, guard)
    commits = _Commits(catalog)
    for error, status in _STATUS.items():
        app.add_exception_handler(error, _handler(status))

    @app.get("/v1/config")
    def config() -> dict[str, Any]:
        return {"defaults": {}, "overrides": {}}

    @app.get("/faults")
    def faults() -> int:
        return len(commits.faults)

    @app.post("/faults/{fault}")
    def add_fault(fault: CommitFault) -> None:
        commits.faults.append(fault)

    @app.post("/v1/namespaces/{namespace}/tables/{table}")
    def commit(namespace: str, table: str, request: dict[str, Any]) -> Response:
        parsed = CommitTableRequest.model_validate(request)
        return commits.serve((*_parts(namespace), table), parsed)

    _add_namespaces(app, catalog)
    _add_tables(app, catalog, guard)
    return app


class _Commits:
    """Applies commits, or meets the next fault."""

    def __init__(self, catalog: Catalog) -> None:
        self.faults: deque[CommitFault] = deque()
        self._catalog = catalog

    def serve(self, identifier: tuple[str, ...], request: CommitTableRequest) -> Response:
        fault = self.faults.popleft() if self.faults else None
        if fault is None:
            return self._apply(identifier, request)
        if fault is CommitFault.REJECT:
            raise CommitFailedException("rejected on demand")
        if fault.applied:
            self._apply(identifier, request)
        if fault.fatal:
            os._exit(1)
        if fault is CommitFault.APPLY_LATE:
            threading.Timer(LATE_S, self._apply, (identifier, request)).start()
            return _error(504, "TimeoutError", "applied later on demand")
        if fault in (CommitFault.DROP, CommitFault.APPLY_THEN_DROP):
            return _BrokenReply()
        return _error(500, "InternalError", "failed on demand")

    def _apply(self, identifier: tuple[str, ...], request: CommitTableRequest) -> Response:
        table = self._catalog.load_table(identifier)
        return _json(self._catalog.commit_table(table, request.requirements, request.updates))


def _add_namespaces(app: FastAPI, catalog: Catalog) -> None:
    @app.get("/v1/namespaces")
    def list_namespaces(parent: str = "") -> Response:
        found = catalog.list_namespaces(_parts(parent) if parent else ())
        return _json(ListNamespaceResponse(namespaces=found))

    @app.post("/v1/namespaces")
    def create_namespace(request: dict[str, Any]) -> Response:
        namespace = tuple(request["namespace"])
        properties = request.get("properties") or {}
        catalog.create_namespace(namespace, properties)
        return _json(NamespaceResponse(namespace=namespace, properties=properties))

    @app.get("/v1/namespaces/{namespace}")
    def load_namespace(namespace: str) -> Response:
        parts = _parts(namespace)
        properties = catalog.load_namespace_properties(parts)
        return _json(NamespaceResponse(namespace=parts, properties=properties))

    @app.delete("/v1/namespaces/{namespace}", status_code=204)
    def drop_namespace(namespace: str) -> None:
        catalog.drop_namespace(_parts(namespace))


def _add_tables(app: FastAPI, catalog: Catalog, guard: Guard | None) -> None:
    def answer(table: Table, request: Request) -> Response:
        asked = request.headers.get("x-iceberg-access-delegation", "")
        vends = guard is not None and "vended-credentials" in asked
        return _table(table, guard.vended if guard is not None and vends else {})

    @app.get("/v1/namespaces/{namespace}/tables")
    def list_tables(namespace: str) -> Response:
        found = [
            ListTableResponseEntry(name=one[-1], namespace=one[:-1])
            for one in catalog.list_tables(_parts(namespace))
        ]
        return _json(ListTablesResponse(identifiers=found))

    @app.post("/v1/namespaces/{namespace}/tables")
    def create_table(namespace: str, body: dict[str, Any], request: Request) -> Response:
        parsed = CreateTableRequest.model_validate({"location": None, **body})
        table = catalog.create_table(
            (*_parts(namespace), parsed.name),
            parsed.table_schema,
            location=parsed.location,
            partition_spec=parsed.partition_spec or UNPARTITIONED_PARTITION_SPEC,
            sort_order=parsed.write_order or UNSORTED_SORT_ORDER,
            properties=parsed.properties,
        )
        return answer(table, request)

    @app.get("/v1/namespaces/{namespace}/tables/{table}")
    def load_table(namespace: str, table: str, request: Request) -> Response:
        return answer(catalog.load_table((*_parts(namespace), table)), request)

    @app.delete("/v1/namespaces/{namespace}/tables/{table}", status_code=204)
    def drop_table(namespace: str, table: str) -> None:
        catalog.drop_table((*_parts(namespace), table))


_STATUS: dict[type[Exception], int] = {
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
    NamespaceAlreadyExistsError: 409,
    NamespaceNotEmptyError: 409,
    TableAlreadyExistsError: 409,
    CommitFailedException: 409,
    ValueError: 400,
}


def _handler(status: int) -> Any:
    def handle(_request: object, error: Exception) -> Response:
        return _error(status, type(error).__name__, str(error))

    return handle


def _table(table: Table, vended: dict[str, str]) -> Response:
    told = TableResponse(metadata=table.metadata, metadata_location=table.metadata_location)
    body = json.loads(told.model_dump_json())
    if vended:
        body["storage-credentials"] = [{"prefix": table.location(), "config": vended}]
    return Response(json.dumps(body), media_type="application/json")


def _json(model: IcebergBaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _error(status: int, kind: str, message: str) -> Response:
    body = {"error": {"message": message, "type": kind, "code": status}}
    return Response(
        httpx.Response(status, json=body).content, status, media_type="application/json"
    )


def _parts(namespace: str) -> tuple[str, ...]:
    return tuple(namespace.split(SEPARATOR))


def main() -> None:
    """Serve until terminated: `python -m … DIRECTORY PORT`, with the guard as JSON on standard
    input."""
    directory, port = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    told = json.loads(sys.stdin.read() or "null")
    guard = None if told is None else Guard(**told)
    warehouse = guard.warehouse if guard is not None else None
    catalog = SqlCatalog(
        "rest",
        **(guard.own if guard is not None else {}),
        uri=f"sqlite:///{directory / 'catalog.db'}?timeout=60",
        warehouse=warehouse or f"file://{directory / 'warehouse'}",
    )
    uvicorn.run(create_app(catalog, guard), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
