"""An identity provider for tests: real RSA keys, and their public halves over real HTTP."""

from __future__ import annotations

import json
import queue
import threading
from datetime import datetime, timedelta, timezone
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

NOW = datetime.now(timezone.utc)
CLAIMS = {
    "iss": "matih",
    "aud": "matih-ray",
    "exp": NOW + timedelta(days=1),
    "sub": "ann",
    "tenant": "acme",
    "roles": ["ROLE_VIEWER", "SOMEBODY_ELSES_ROLE"],
}


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key of this test run; the name is its `kid` and stands for nothing else."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_entry(name: str, bits: int = 2048, **changes: object) -> dict[str, object]:
    """The public half as an entry of a key set; a change to None removes a field."""
    entry = jwt.algorithms.RSAAlgorithm.to_jwk(private_key(name, bits).public_key(), as_dict=True)
    entry = {**entry, "kid": name, "use": "sig", "alg": "RS256", **changes}
    return {field: value for field, value in entry.items() if value is not None}


def signed(name: str, *, bits: int = 2048, kid: object = ..., **changes: object) -> str:
    """A token signed with a key; a change to None removes a claim."""
    claims = {claim: value for claim, value in {**CLAIMS, **changes}.items() if value is not None}
    headers = {} if kid is None else {"kid": name if kid is ... else kid}
    return jwt.encode(claims, private_key(name, bits), algorithm="RS256", headers=headers)


class IdentityProvider:
    """Serves a key set on loopback; counts who asks, and can break in several ways."""

    def __init__(self, *names: str) -> None:
        self.entries: list[object] = [public_entry(name) for name in names]
        self.body: bytes | None = None  # instead of the entries
        self.status = 200
        self.asked = 0
        self.arrived: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.may_answer = threading.Event()
        self.may_answer.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.arrived.put(self.path)
                provider.may_answer.wait(30)
                if self.path == "/elsewhere":
                    self.answer(200, provider.document())
                elif provider.status == 302:
                    self.answer(302, b"", location="/elsewhere")
                else:
                    self.answer(provider.status, provider.document())

            def answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for header, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def document(self) -> bytes:
        """What it answers with."""
        return json.dumps({"keys": self.entries}).encode() if self.body is None else self.body

    def stop(self) -> None:
        """Nobody listens any more."""
        self.may_answer.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> IdentityProvider:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
