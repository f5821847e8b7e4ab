"""What emulators of Google lack, in front of them: tokens for keys, refusals, preconditions.

Our own, after https://developers.google.com/identity/protocols/oauth2/service-account and
https://cloud.google.com/storage/docs/json_api/v1/status-codes. It believes the tokens that it gave
and those it is told of, and passes on what it does not refuse.
"""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EMAIL = "reader@project.iam.gserviceaccount.com"
# What Google's library signs, wherever the key file sends it.
AUDIENCE = "https://oauth2.googleapis.com/token"
_HOP_BY_HOP = {"connection", "content-length", "date", "server", "transfer-encoding"}


class GoogleGate:
    """A gate to an emulator at `url`. `readers` are tokens that may read, `strangers` known ones
    that may not."""

    def __init__(self, url: str) -> None:
        self.readers: set[str] = set()
        self.strangers: set[str] = set()
        self._store = url
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(*gate.answer(self.path, self.headers.get("Authorization", ""), self))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/token":
                    given = gate.token(parse_qs(body.decode()))
                    self._send(*given, {"content-type": "application/json"})
                else:
                    authorization = self.headers.get("Authorization", "")
                    self._send(*gate.answer(self.path, authorization, self, body))

            def log_message(self, *_: object) -> None:
                pass

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._client = httpx.Client(trust_env=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def key_file(self, key: rsa.RSAPrivateKey | None = None) -> str:
        """A service account's key file; with another key than its own it is refused."""
        pem = (key or self._key).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return json.dumps(
            {
                "type": "service_account",
                "client_email": EMAIL,
                "private_key": pem.decode(),
                "token_uri": f"{self.url}/token",
            }
        )

    def token(self, form: dict[str, list[str]]) -> tuple[int, bytes]:
        """The answer to a request for a token."""
        try:
            claims = jwt.decode(
                form["assertion"][0],
                self._key.public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                issuer=EMAIL,
            )
        except (KeyError, jwt.InvalidTokenError):
            told = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            return 400, json.dumps(told).encode()
        assert claims["scope"].endswith((".read_only", "/bigquery")), "more than a source needs"
        token = secrets.token_hex(16)
        self.readers.add(token)
        return 200, json.dumps({"access_token": token, "expires_in": 3600}).encode()

    def answer(
        self, path: str, authorization: str, request: BaseHTTPRequestHandler, body: bytes = b""
    ) -> tuple[int, bytes, dict[str, str]]:
        """The answer to a request for the emulator; a POST if it has a body."""
        token = authorization.removeprefix("Bearer ")
        if token in self.strangers:
            return _refusal(403, f"Access Denied: {EMAIL} has not the right that this needs.")
        if token not in self.readers:
            return _refusal(401, "Invalid Credentials")
        wanted = parse_qs(urlsplit(path).query).get("ifGenerationMatch")
        if wanted is not None and self._generation(path) not in (None, wanted[0]):
            return _refusal(412, "At least one of the pre-conditions you specified did not hold.")
        kept = {n: v for n, v in request.headers.items() if n.lower() in ("range", "accept")}
        if body:
            kept["content-type"] = request.headers.get("Content-Type", "")
            found = self._client.post(f"{self._store}{path}", headers=kept, content=body)
        else:
            found = self._client.get(f"{self._store}{path}", headers=kept)
        return found.status_code, found.content, dict(found.headers)

    def _generation(self, path: str) -> str | None:
        place = urlsplit(path).path.removeprefix("/download")
        found = self._client.get(f"{self._store}{place}")
        return str(found.json()["generation"]) if found.status_code == 200 else None

    def __enter__(self) -> GoogleGate:
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


def _refusal(status: int, message: str) -> tuple[int, bytes, dict[str, str]]:
    told = {"error": {"code": status, "message": message, "errors": []}}
    return status, json.dumps(told).encode(), {"content-type": "application/json"}
