"""Webhooks over HTTP: signed, sent again, and no way into the network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matih_ray.control import webhook_delivery
from matih_ray.control.connectivity import failed_test
from matih_ray.control.connector_health import note_test
from matih_ray.control.webhook_delivery import RETRY_DELAYS, deliver_due
from matih_ray.errors import ConnectionRefusedByHostError
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.lab import TENANT, Lab, assert_problem, open_lab
from tests.api.test_endpoints import files_with

KEY = base64.b64encode(b"a key of thirty-two bytes, no less"[:32]).decode()
SECRET = f"whsec_{KEY}"
TOKEN = "token-in-the-path-4711"


@dataclass
class Receiver:
    """What a tenant runs to be told: remembers requests, answers as told."""

    port: int = 0
    status: int = 204
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/{TOKEN}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    known = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            known.requests.append((self.path, dict(self.headers), body))
            self.send_response(known.status)
            if known.status == 302:
                self.send_header("Location", f"http://127.0.0.1:{known.port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


def set_webhook(lab: Lab, url: str, **more: str):
    return lab.call("PUT", "/notifications/webhook", json={"url": url, **more})


def fail_connector(lab: Lab, connector_id: str, times: int = 2) -> None:
    record = lab.ports.metadata.get_endpoint(TENANT, connector_id)
    for _ in range(times):
        note_test(
            lab.ports, record, failed_test(lab.ports, record, ConnectionRefusedByHostError("down"))
        )


def at(lab: Lab, later: timedelta):
    """The ports as they are some time later."""
    clock = lab.ports.clock
    return replace(lab.ports, clock=lambda: clock() + later)


def test_a_connector_in_error_is_told_once_signed(lab: Lab, receiver: Receiver):
    connector_id = lab.endpoint()
    answer = set_webhook(lab, receiver.url, secret=SECRET)
    assert answer.status_code == 200, answer.text
    assert answer.json()["secret"] is None
    fail_connector(lab, connector_id)
    assert deliver_due(lab.ports) == 1
    assert deliver_due(lab.ports) == 0
    ((path, headers, body),) = receiver.requests
    assert path == f"/hooks/{TOKEN}"
    sent = json.loads(body)
    assert sent["type"] == "connector.error"
    listed = lab.call("GET", "/notifications").json()["items"]
    assert sent["data"] == listed[0]
    assert headers["webhook-id"] == listed[0]["notificationId"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(base64.b64decode(KEY), signed, hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    shown = lab.call("GET", "/notifications/webhook").json()
    assert (shown["host"], shown["lastStatus"], shown["lastError"]) == ("127.0.0.1", 204, None)


def test_without_a_webhook_nothing_is_due(lab: Lab, receiver: Receiver):
    fail_connector(lab, lab.endpoint())
    assert len(lab.call("GET", "/notifications").json()["items"]) == 1
    assert set_webhook(lab, receiver.url).status_code == 200
    assert deliver_due(at(lab, timedelta(days=9))) == 0


def test_what_is_refused_is_sent_again_later_and_given_up_in_the_end(lab: Lab, receiver: Receiver):
    connector_id = lab.endpoint()
    assert set_webhook(lab, receiver.url).status_code == 200
    fail_connector(lab, connector_id)
    receiver.status = 503
    assert deliver_due(lab.ports) == 1
    elapsed, moment = timedelta(), timedelta(seconds=5)
    for delay in RETRY_DELAYS:
        assert deliver_due(at(lab, elapsed + delay - moment)) == 0
        elapsed += delay + moment
        assert deliver_due(at(lab, elapsed)) == 1
    assert deliver_due(at(lab, timedelta(days=90))) == 0
    assert len(receiver.requests) == 1 + len(RETRY_DELAYS)
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    shown = lab.call("GET", "/notifications/webhook").json()
    assert shown["lastError"] == "the receiver answered with status 503"


def test_a_key_is_made_when_none_is_given_and_shown_once(lab: Lab, receiver: Receiver):
    made = set_webhook(lab, receiver.url).json()["secret"]
    assert made.startswith("whsec_")
    assert len(base64.b64decode(made.removeprefix("whsec_"))) == 32
    shown = lab.call("GET", "/notifications/webhook")
    assert made not in shown.text
    home = Path(lab.ports.settings.home)
    assert files_with(home, made) == []
    assert files_with(home, TOKEN) == []


def test_a_try_tells_how_it_went(lab: Lab, receiver: Receiver):
    assert set_webhook(lab, receiver.url).status_code == 200
    tried = lab.call("POST", "/notifications/webhook/test").json()
    assert (tried["success"], tried["status"]) == (True, 204)
    assert json.loads(receiver.requests[0][2])["type"] == "webhook.test"
    receiver.status = 302
    tried = lab.call("POST", "/notifications/webhook/test").json()
    assert (tried["success"], tried["status"]) == (False, 302)
    assert [path for path, _, _ in receiver.requests] == [f"/hooks/{TOKEN}"] * 2


def test_a_removed_webhook_gets_nothing(lab: Lab, receiver: Receiver):
    connector_id = lab.endpoint()
    assert set_webhook(lab, receiver.url).status_code == 200
    fail_connector(lab, connector_id)
    assert lab.call("DELETE", "/notifications/webhook").status_code == 204
    assert deliver_due(lab.ports) == 1
    assert deliver_due(at(lab, timedelta(days=9))) == 0
    assert receiver.requests == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test")):
        assert_problem(lab.call(method, f"/notifications/webhook{path}"), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://example.com/"},
        {"url": "https://"},
        {"url": "https://user:secret-in-url@example.com/"},
        {"url": "https://example.com:99999/"},
        {"url": "https://[::1"},
        {"url": "http://127.0.0.1/" + "x" * 3000},
        {"secret": "whsec_dG9vIHNob3J0"},
        {"secret": KEY},
        {"secret": "whsec_" + "*" * 44},
    ],
    ids=lambda change: "-".join(change.values())[:24],
)
def test_what_is_malformed_is_refused_and_not_repeated(lab: Lab, change: dict[str, str]):
    answer = lab.call(
        "PUT", "/notifications/webhook", json={"url": "http://127.0.0.1:9/", **change}
    )
    assert_problem(answer, 422, "VALIDATION_FAILED")
    assert "secret-in-url" not in answer.text
    assert lab.call("GET", "/notifications/webhook").status_code == 404


def test_a_webhook_cannot_point_at_metadata_services(lab: Lab):
    answer = set_webhook(lab, "http://169.254.169.254/latest/meta-data")
    assert answer.json()["code"] == "HOST_NOT_ALLOWED"


def test_the_host_is_checked_again_when_it_is_sent(tmp_path: Path, receiver: Receiver):
    """A name may come to mean another address; here the operator changes the policy."""
    for lab in open_lab(tmp_path / "home", RecordingLauncher()):
        connector_id = lab.endpoint()
        assert set_webhook(lab, receiver.url).status_code == 200
        fail_connector(lab, connector_id)
        closed = replace(
            lab.ports, settings=lab.ports.settings.model_copy(update={"private_hosts": False})
        )
        assert deliver_due(closed) == 1
        assert receiver.requests == []
        error = lab.call("GET", "/notifications/webhook").json()["lastError"]
        assert "a private address" in error


def test_a_receiver_that_hangs_is_left(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(webhook_delivery, "TIMEOUT_S", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        url = f"http://127.0.0.1:{silent.server_port}/"
        assert set_webhook(lab, url).status_code == 200
        tried = lab.call("POST", "/notifications/webhook/test").json()
    assert tried["message"] == "no answer within 0.2 s"
