"""Nothing that a connector or a caller keeps secret is logged, stored in clear or answered."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
import structlog

from matih_ray.control.authorization import Role
from matih_ray.telemetry import configure_logging
from matih_ray.testing.fakes import InlineLauncher
from tests.api.lab import PASSWORD, Lab, open_lab


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def lab(tmp_path: Path, log: io.StringIO) -> Iterator[Lab]:
    for opened in open_lab(tmp_path / "home", InlineLauncher()):
        settings = opened.ports.settings.model_copy(update={"log_level": "DEBUG"})
        configure_logging(settings)
        yield opened


def test_secrets_are_nowhere_but_in_the_credential_store(lab: Lab, log: io.StringIO):
    answers: list[httpx.Response] = []

    def call(method: str, path: str, **kwargs) -> httpx.Response:
        answers.append(lab.call(method, path, **kwargs))
        return answers[-1]

    for name, more in (("good", {}), ("bad", {"failsAt": "read"}), ("shut", {"failsAt": "test"})):
        endpoint_id = lab.endpoint(name, **more)
        call("GET", f"/endpoints/{endpoint_id}")
        call("POST", f"/endpoints/{endpoint_id}/test")
        load = {"endpointId": endpoint_id, "unitId": "public.orders"}
        call("POST", "/plans", json=load)
        run_id = call("POST", "/runs", json=load).json()["runId"]
        call("GET", f"/runs/{run_id}")
        call("GET", f"/runs/{run_id}/slices")
        call("PUT", f"/endpoints/{endpoint_id}", json={"config": {"password": PASSWORD}})
        call("PUT", f"/endpoints/{endpoint_id}", json={"config": {}, "secrets": PASSWORD})
        call("PUT", f"/endpoints/{endpoint_id}", json={"config": {"user": {"x": PASSWORD}}})
    call("POST", "/endpoints", content=f'{{"secrets": {{"password": "{PASSWORD}"'.encode())
    token = lab.as_(Role.ADMIN)["Authorization"]
    call("GET", "/endpoints", headers={"Authorization": token + "x"})
    call("GET", "/endpoints", headers={"Authorization": token.replace("Bearer", "Basic")})
    lines = log.getvalue()
    assert lines.count('"event": "request"') >= len(answers)
    secrets = [PASSWORD, token.removeprefix("Bearer ")]
    for secret in secrets:
        assert secret not in lines
        assert not [answer.url for answer in answers if secret in answer.text]
        assert not [
            path
            for path in lab.ports.settings.home.rglob("*")
            if path.is_file() and secret.encode() in path.read_bytes()
        ]


# What JSON, SQL, URLs, shells, regular expressions and formats each treat in their own way.
NASTY = [
    "quote'\"quote-never-shown",
    "back\\slash\\n-never-shown",
    "per%20cent%s{braces}-never-shown",
    "ünïcödé-密码-never-shown",
    "a b\tc-never-shown",
    "postgresql://u:p@h/d?never-shown",
]


def forms_of(secret: str) -> set[str]:
    """How a secret could be written down."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret),
        quote_plus(secret),
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
    }


@pytest.mark.parametrize("secret", NASTY)
def test_a_connectors_credentials_are_nowhere_but_in_their_store(
    lab: Lab, log: io.StringIO, secret: str
):
    answers = []

    def call(method: str, path: str, **kwargs) -> httpx.Response:
        answers.append(lab.call(method, path, **kwargs))
        return answers[-1]

    credentials = {"username": "reader", "password": secret, "clientKey": secret}
    for name, metadata in (
        ("good", {"tables": {"public.t": 10}}),
        ("shut", {"failsAt": "test"}),
        ("half", {"tables": {"public.t": 10}, "failsAt": "describe"}),
    ):
        draft = {"name": name, "type": "MEMORY", "credentials": credentials, "metadata": metadata}
        call("POST", "/connectors", json=draft, headers={"Idempotency-Key": name})
        call("POST", "/connectors", json={**draft, "metadata": {"password": secret}})
        call("POST", "/connectors", json={**draft, "credentials": {"passwort": secret}})
    listed = call("GET", "/connectors").json()["items"]
    assert [item["name"] for item in listed] == ["good", "half"]
    for item in listed:
        path = f"/connectors/{item['id']}"
        call("GET", path)
        call("POST", f"{path}/test")
        call("POST", f"{path}/discover")
        call("GET", f"{path}/schemas?columns=true")
        call("PUT", f"{path}/credentials", json={"credentials": {"password": secret}})
        call("PUT", path, json={"metadata": {"failsAt": "test"}, "credentials": credentials})
    run_id = lab.start(listed[0]["id"], "public.t").json()["runId"]
    call("GET", f"/runs/{run_id}")
    call("GET", "/notifications")
    written = [answer.text for answer in answers] + [log.getvalue()]
    written += [
        path.read_bytes().decode(errors="replace")
        for path in lab.ports.settings.home.rglob("*")
        if path.is_file()
    ]
    for form in forms_of(secret):
        assert [text for text in written if form in text] == []
