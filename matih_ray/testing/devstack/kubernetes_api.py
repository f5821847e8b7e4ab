"""A small Kubernetes API server of our own, with namespaces and Secrets only.

It stands in for the real one, which needs a cluster: an own fake, to which the official client
talks over HTTP. What it does is taken from the API's documentation and conventions
(https://kubernetes.io/docs/reference/using-api/api-concepts/): names, labels, field names and
base64 are checked, writes are refused when their `resourceVersion` is not the stored one, failures
are `Status` objects. Roles are a set of refused verbs, and faults are switched on the object:

    with KubernetesApi() as api:
        api.add_namespace("matih-acme")
        api.forbid("create", "matih-acme")
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets as random
import threading
from collections import deque
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

# How often the serving thread looks whether it should stop.
POLL_S = 0.02
MAX_SECRET_BYTES = 1024 * 1024

_PATH = re.compile(r"/api/v1/namespaces/([^/?]+)/secrets(?:/([^/?]+))?(?:\?.*)?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_FIELD = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LABEL_NAME = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "DELETE": "delete"}

Document = dict[str, Any]


class ApiFault(str, Enum):
    """What happens to a request instead of the right thing."""

    FAIL = "fail"  # 500, not applied
    DROP = "drop"  # the connection breaks, not applied
    APPLY_THEN_DROP = "apply_then_drop"  # applied, then the connection breaks


class _Refusal(Exception):  # noqa: N818 - an answer, not an error of ours
    """A failure as the API server reports it."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.answer: tuple[int, Document] = (
            status,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": reason,
                "details": details,
                "code": status,
            },
        )


class KubernetesApi:
    """An API server on a free loopback port, in a thread of this process.

    With `provision`, namespaces are made when they are first written to, as the admission plugin
    NamespaceAutoProvision does.
    """

    def __init__(self, *, provision: bool = False) -> None:
        self.token = random.token_urlsafe(16)
        self.requests: deque[str] = deque(maxlen=10_000)
        self._provision = provision
        self._lock = threading.Lock()
        self._namespaces: set[str] = set()
        self._terminating: set[str] = set()
        self._stored: dict[tuple[str, str], Document] = {}
        self._version = 0
        self._forbidden: set[tuple[str, str]] = set()
        self._quota: dict[str, int] = {}
        self._faults: deque[ApiFault] = deque()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,))

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> KubernetesApi:
        """Begin to answer."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering; harmless when it has stopped."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def write_kube_config(self, path: Path, token: str | None = None) -> Path:
        """A kubeconfig for this server, with its token or another."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "matih", "user": {"token": token or self.token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "matih"}}],
            "current-context": "fake",
        }
        path.write_text(json.dumps(document))  # JSON is YAML
        return path

    def add_namespace(self, name: str) -> None:
        """`kubectl create namespace`."""
        self._namespaces.add(name)

    def terminate_namespace(self, name: str) -> None:
        """Let a namespace be in the state of being deleted: nothing new can be made there."""
        self._terminating.add(name)

    def forbid(self, verb: str, namespace: str) -> None:
        """Take a verb (`create`, `get`, `update`, `delete`) from the account in a namespace."""
        self._forbidden.add((verb, namespace))

    def set_quota(self, namespace: str, secrets: int) -> None:
        """Let a namespace have at most so many Secrets."""
        self._quota[namespace] = secrets

    def fail_next(self, fault: ApiFault, times: int = 1) -> None:
        """Let the next requests meet a fault; further calls queue up."""
        self._faults.extend([fault] * times)

    def secret(self, namespace: str, name: str) -> Document:
        """A Secret as it is stored; an empty object if there is none."""
        with self._lock:
            stored = self._stored.get((namespace, name), {})
            return dict(json.loads(json.dumps(stored)))

    def replace_secret(self, namespace: str, name: str, data: dict[str, str]) -> None:
        """Write data past all checks, as somebody else would."""
        with self._lock:
            self._store(namespace, name, {"data": data, "metadata": {}})

    def __enter__(self) -> KubernetesApi:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- requests --------------------------------------------------------------------------------

    def serve(self, method: str, path: str, authorization: str, body: bytes) -> _Answer:
        """Answer one request; None breaks the connection instead."""
        fault = self._faults.popleft() if self._faults else None
        self.requests.append(f"{method} {path}")
        if fault is ApiFault.DROP:
            return None
        if fault is ApiFault.FAIL:
            return _Refusal(500, "InternalError", "failed on demand").answer
        if authorization.lower() != f"bearer {self.token}".lower():
            return _Refusal(401, "Unauthorized", "Unauthorized").answer
        try:
            with self._lock:
                answer = self._applied(method, path, body)
        except _Refusal as refused:
            return refused.answer
        return None if fault is ApiFault.APPLY_THEN_DROP else answer

    def _applied(self, method: str, path: str, body: bytes) -> tuple[int, Document]:
        match = _PATH.fullmatch(path)
        verb = _VERBS.get(method)
        if match is None or verb is None or (match[2] is None) != (verb == "create"):
            raise _Refusal(404, "NotFound", "the server could not find the requested resource")
        namespace, name = match[1], match[2] or ""
        if (verb, namespace) in self._forbidden:
            raise _Refusal(
                403,
                "Forbidden",
                f'secrets is forbidden: User "matih" cannot {verb} resource "secrets" in API group '
                f'"" in the namespace "{namespace}"',
                kind="secrets",
            )
        if verb == "create":
            return 201, self._create(namespace, json.loads(body))
        stored = self._stored.get((namespace, name))
        if stored is None:
            raise _Refusal(
                404, "NotFound", f'secrets "{name}" not found', name=name, kind="secrets"
            )
        if verb == "get":
            return 200, stored
        if verb == "update":
            return 200, self._update(namespace, name, stored, json.loads(body))
        del self._stored[namespace, name]
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _create(self, namespace: str, secret: Document) -> Document:
        name = str(secret["metadata"].get("name"))
        _check(name, secret)
        if self._provision:
            self._namespaces.add(namespace)
        if namespace not in self._namespaces:
            raise _Refusal(
                404,
                "NotFound",
                f'namespaces "{namespace}" not found',
                name=namespace,
                kind="namespaces",
            )
        if namespace in self._terminating:
            causes = [{"reason": "NamespaceTerminating"}]
            raise _Refusal(403, "Forbidden", "being terminated", name=name, causes=causes)
        if (namespace, name) in self._stored:
            raise _Refusal(409, "AlreadyExists", f'secrets "{name}" already exists', name=name)
        used = sum(where == namespace for where, _ in self._stored)
        if used >= self._quota.get(namespace, used + 1):
            raise _Refusal(403, "Forbidden", f'secrets "{name}" is forbidden: exceeded quota')
        return self._store(namespace, name, secret)

    def _update(self, namespace: str, name: str, stored: Document, secret: Document) -> Document:
        _check(name, secret)
        expected = secret["metadata"].get("resourceVersion")
        if expected and expected != stored["metadata"]["resourceVersion"]:
            raise _Refusal(409, "Conflict", "the object has been modified", name=name)
        if secret.get("type", "Opaque") != stored.get("type", "Opaque"):
            raise _Refusal(422, "Invalid", "type: field is immutable", name=name)
        return self._store(namespace, name, secret)

    def _store(self, namespace: str, name: str, secret: Document) -> Document:
        self._version += 1
        metadata = {
            **secret["metadata"],
            "name": name,
            "namespace": namespace,
            "resourceVersion": str(self._version),
        }
        kept = {"kind": "Secret", "apiVersion": "v1", "type": "Opaque", **secret}
        self._stored[namespace, name] = {**kept, "metadata": metadata}
        return self._stored[namespace, name]


_Answer = tuple[int, Document] | None


def _check(name: str, secret: Document) -> None:
    """Raise what the API server answers to a Secret that is not valid."""
    data = secret.get("data") or {}
    wrong = [field for field in data if not _FIELD.fullmatch(field) or field.startswith("..")]
    if not _DNS_SUBDOMAIN.fullmatch(name) or len(name) > 253:
        wrong.append("metadata.name")
    for label, value in (secret["metadata"].get("labels") or {}).items():
        if not (_LABEL_NAME.fullmatch(label) and _LABEL_VALUE.fullmatch(value)):
            wrong.append(f"metadata.labels: {label}")
    try:
        size = sum(len(base64.b64decode(value, validate=True)) for value in data.values())
    except (binascii.Error, TypeError):
        raise _Refusal(400, "BadRequest", "illegal base64 data") from None
    if wrong or size > MAX_SECRET_BYTES:
        raise _Refusal(422, "Invalid", f'Secret "{name}" is invalid: {wrong}', name=name)


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """HTTP around `KubernetesApi.serve`."""

        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            """Read one request and answer it."""
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            authorization = self.headers.get("authorization") or ""
            answer = api.serve(self.command, self.path, authorization, body)
            if answer is None:
                self.close_connection = True
                return
            status, document = answer
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do_any  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Nothing: Secrets' names would be in it."""

    return Handler
