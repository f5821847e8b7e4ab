"""A stand-in for a Databricks SQL warehouse of our own: the vendor's client talks to it over HTTP.

No registry has Databricks. What this one lacks: most of its SQL, privileges, transactions, cloud
fetch, metadata requests, and statements that are cancelled while they run. JSON text, and values as
text, look as DuckDB writes them. It runs in threads of the test's process, so that a test can look
at what was asked.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import jwt
from databricks.sql.thrift_api.TCLIService import TCLIService
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer

from matih_ray.testing.devstack.databricks_thrift import RealTimeWarehouse, Warehouse

HTTP_PATH = "/sql/1.0/warehouses/w1"
REAL_TIME_PATH = "/sql/1.0/warehouses/r1"
TOKEN_PATH = "/oidc/v1/token"  # noqa: S105 a path
TOKEN_LIFETIME_S = 3600
SIGNING_KEY = "nobody looks at the signature, the client at the claims"
LIMIT_S = 30.0


class DatabricksServer(Warehouse):
    """The server. `tokens` may log in, `clients` are secrets of service principals by id."""

    def __init__(
        self,
        *tokens: str,
        clients: Mapping[str, str] | None = None,
        catalog: str = "shop",
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """With a certificate and its key (PEM), TLS is spoken and needed."""
        super().__init__(catalog)
        self.tokens, self.clients = set(tokens), dict(clients or {})
        self.forbidden: set[str] = set()  # tokens that may not use the warehouse
        self.busy = 0  # requests that are still to be answered with "come back later"
        self.lost = 0  # answers that are still to be lost on their way
        self.paths: list[str] = []
        self._http = _Http(("127.0.0.1", 0), _Request)
        self._http.warehouse = self
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._http.socket = context.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host, self.port = "127.0.0.1", int(self._http.server_address[1])
        self._processors = {
            HTTP_PATH: TCLIService.Processor(self),
            REAL_TIME_PATH: TCLIService.Processor(RealTimeWarehouse()),
        }
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def answered(self, path: str, body: bytes) -> bytes:
        """The answer to a request of the client's protocol."""
        asked, answer = TMemoryBuffer(body), TMemoryBuffer()
        self._processors[path].process(TBinaryProtocol(asked), TBinaryProtocol(answer))
        return bytes(answer.getvalue())

    def granted(self, authorization: str, body: bytes) -> dict[str, Any] | None:
        """The answer to a request for a token; None if it is refused."""
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).partition(b":")
        form = urllib.parse.parse_qs(body.decode())
        known = self.clients.get(client.decode())
        if known != secret.decode() or form.get("grant_type") != ["client_credentials"]:
            return None
        claims = {
            "iss": f"https://{self.host}/oidc",
            "sub": client.decode(),
            "exp": int(time.time()) + TOKEN_LIFETIME_S,
            "jti": str(len(self.tokens)),
        }
        token = jwt.encode(claims, SIGNING_KEY)
        self.tokens.add(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFETIME_S}

    def __enter__(self) -> DatabricksServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(LIMIT_S)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    warehouse: DatabricksServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone, or refused the certificate, is no news."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are sent apart
    server: _Http

    def do_POST(self) -> None:
        """One request: a login, or one of the client's protocol."""
        warehouse = self.server.warehouse
        body = self.rfile.read(int(self.headers["Content-Length"]))
        authorization = self.headers.get("Authorization", "")
        warehouse.paths.append(self.path)
        if self.path == TOKEN_PATH:
            granted = warehouse.granted(authorization, body)
            answer = json.dumps(granted or {"error": "invalid_client"}).encode()
            self._send(401 if granted is None else 200, "application/json", answer)
        elif self.path not in (HTTP_PATH, REAL_TIME_PATH):
            self._send(404, "text/plain", b"no such warehouse")
        elif authorization.removeprefix("Bearer ") not in warehouse.tokens:
            self._refuse(401, "Invalid access token")
        elif authorization.removeprefix("Bearer ") in warehouse.forbidden:
            self._refuse(403, "You do not have permission to use the SQL warehouse")
        elif warehouse.busy:
            warehouse.busy -= 1
            self._refuse(503, "The warehouse is starting", {"Retry-After": "1"})
        else:
            answer = warehouse.answered(self.path, body)
            if warehouse.lost:
                warehouse.lost -= 1
                self.close_connection = True
            else:
                self._send(200, "application/x-thrift", answer)

    def _refuse(self, status: int, text: str, more: Mapping[str, str] | None = None) -> None:
        headers = {"x-databricks-reason-phrase": text, **(more or {})}
        self._send(status, "text/html", b"<html></html>", headers)

    def _send(
        self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
