"""What fakesnow lacks, in front of it: passwords, keys, roles and rights.

Our own, after what the Python connector sends and understands. It refuses logins as the service
does, and statements that name a forbidden table; what it does not refuse it passes on.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

# Longer than the emulator needs for any statement of a test.
ANSWER_TIMEOUT_S = 60.0
_HOP_BY_HOP = {"connection", "content-encoding", "content-length", "transfer-encoding"}

WRONG_PASSWORD = ("390100", "Incorrect username or password was specified.")
WRONG_KEY = ("390144", "JWT token is invalid. [0ce9eb56-821d-4ca9-a774-04ae89a0cf5a]")
WRONG_ROLE = (
    "390189",
    "Role '{}' specified in the connect string does not exist or not authorized.",
)
NO_RIGHT = (
    "003001",
    "SQL access control error:\nInsufficient privileges to operate on table '{}'",
)


class SnowflakeGate:
    """A gate to an emulator at `url`. `passwords` and `keys` are those of users in capitals,
    `roles` may be asked for, and nobody may read `forbidden` tables."""

    def __init__(self, url: str) -> None:
        self.passwords: dict[str, str] = {}
        self.keys: dict[str, rsa.RSAPublicKey] = {}
        self.roles: set[str] = set()
        self.forbidden: set[str] = set()
        self._emulator = url
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                zipped = self.headers.get("Content-Encoding") == "gzip"
                asked: dict[str, Any] = json.loads(gzip.decompress(body) if zipped else body)
                refusal = gate.refusal(self.path, asked)
                if refusal is None:
                    self._send(*gate.passed_on(self.path, dict(self.headers), asked))
                else:
                    told = {"data": {"sqlState": "42501"}, "success": False}
                    told |= dict(zip(("code", "message"), refusal, strict=True))
                    self._send(json.dumps(told).encode(), {"Content-Type": "application/json"})

            def log_message(self, *_: object) -> None:
                pass

            def _send(self, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(200)
                for name, value in headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._client = httpx.Client(trust_env=False, timeout=ANSWER_TIMEOUT_S)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def refusal(self, path: str, asked: dict[str, Any]) -> tuple[str, str] | None:
        """The number and text of a refusal; None if the request may pass."""
        if path.startswith("/session/v1/login-request"):
            role = next(iter(httpx.QueryParams(path.partition("?")[2]).get_list("roleName")), None)
            return self._login_refusal(asked["data"], role)
        for table in self.forbidden:
            if f'"{table}"' in asked.get("sqlText", ""):
                return NO_RIGHT[0], NO_RIGHT[1].format(table)
        return None

    def passed_on(
        self, path: str, headers: dict[str, str], asked: dict[str, Any]
    ) -> tuple[bytes, dict[str, str]]:
        """The emulator's answer."""
        kept = {n: v for n, v in headers.items() if n.lower() in ("authorization", "accept")}
        found = self._client.post(
            f"{self._emulator}{path}",
            content=gzip.compress(json.dumps(asked).encode()),
            headers={**kept, "Content-Type": "application/json", "Content-Encoding": "gzip"},
        )
        return found.content, dict(found.headers)

    def _login_refusal(self, data: dict[str, Any], role: str | None) -> tuple[str, str] | None:
        user = str(data["LOGIN_NAME"]).upper()
        if data.get("AUTHENTICATOR") == "SNOWFLAKE_JWT":
            if not self._signed(user, str(data["ACCOUNT_NAME"]).upper(), str(data["TOKEN"])):
                return WRONG_KEY
        elif data.get("PASSWORD") is None or self.passwords.get(user) != data["PASSWORD"]:
            return WRONG_PASSWORD
        if role is not None and role not in self.roles:
            return WRONG_ROLE[0], WRONG_ROLE[1].format(role)
        return None

    def _signed(self, user: str, account: str, token: str) -> bool:
        """Whether the user's own key has signed the token, for this account."""
        key = self.keys.get(user)
        if key is None:
            return False
        der = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        print_ = base64.b64encode(hashlib.sha256(der).digest()).decode()
        issuer = f"{account}.{user}.SHA256:{print_}"
        try:
            claims = jwt.decode(token, key, algorithms=["RS256"], issuer=issuer)
        except jwt.InvalidTokenError:
            return False
        return bool(claims["sub"] == f"{account}.{user}")

    def __enter__(self) -> SnowflakeGate:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()
