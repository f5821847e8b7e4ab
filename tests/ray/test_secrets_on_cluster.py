"""A secret is in the credential store and nowhere else: not in files, logs, answers or listings.

Passwords are random, with the signs that quoting trips over; each is looked for as it is and in the
forms that text takes on its way (JSON, URL, base64, Python).
"""

from __future__ import annotations

import base64
import json
import os
import random
import string
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest
import ray

from matih_ray.model.ids import EndpointId
from matih_ray.model.run import RunState
from matih_ray.testing.devstack.mariadb import MariaDbServer
from serve_apps.local import LocalRuntime
from tests.ray.lab import TENANT, Lab
from tests.ray.test_connectors import http  # noqa: F401 a fixture

SEED = int(os.environ.get("SEED", "20240131"))
EXAMPLES = int(os.environ.get("EXAMPLES", "3"))
SIGNS = string.ascii_letters + string.digits + " !#$%&()*+,-./:;<=>?@[]^_{|}~äß€"
# A file that is read in one piece; logs and tables of these tests are far smaller.
MAX_FILE_BYTES = 512 * 1024 * 1024


def forms_of(secret: str) -> list[bytes]:
    """The secret as it may be written. Base64 at its three alignments, without the ends."""
    texts = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
    }
    raw = secret.encode()
    encoded = {base64.b64encode(b"x" * shift + raw)[4:-4] for shift in range(3)}
    return [text.encode() for text in texts] + sorted(encoded)


def files_that_hold(forms: list[bytes], *roots: Path) -> list[str]:
    found = []
    for root in roots:
        for path in root.rglob("*"):
            if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            content = path.read_bytes()
            found += [str(path.relative_to(root)) for form in forms if form in content]
    return found


def test_the_search_finds_what_is_there(tmp_path: Path):
    secret = 'pa"ss wörd/+%'
    (tmp_path / "log").write_text(json.dumps({"url": f"mysql://u:{quote(secret, safe='')}@h"}))
    (tmp_path / "config").write_bytes(base64.b64encode(f"user:{secret}".encode()))
    assert set(files_that_hold(forms_of(secret), tmp_path)) == {"log", "config"}


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_a_password_is_nowhere(
    lab: Lab,
    http: httpx.Client,  # noqa: F811
    runtime: LocalRuntime,
    number: int,
):
    generator = random.Random(f"{SEED}-{number}")
    print(f"SEED={SEED}, example {number}")
    old, new, wrong = ("".join(generator.choices(SIGNS, k=24)) for _ in range(3))
    answers: list[bytes] = []

    def call(method: str, path: str, **options: object) -> httpx.Response:
        answer = http.request(method, path, **options)
        answers.append(answer.content + str(answer.headers).encode())
        return answer

    with MariaDbServer() as server:
        server.execute(
            "CREATE DATABASE shop",
            "USE shop",
            "CREATE TABLE shop.items (id bigint PRIMARY KEY, name text)",
            "INSERT INTO shop.items SELECT seq, repeat('x', 100) FROM seq_1_to_3000",
            f"CREATE USER reader@'%' IDENTIFIED BY '{old}'",
            "GRANT ALL ON shop.* TO reader@'%'",
        )
        login = {"username": "reader", "password": old}
        draft = {
            "name": f"s{number}-{lab.database}",
            "type": "MYSQL",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "credentials": login,
            "sslEnabled": False,
        }
        refused = call(
            "POST", "/connectors", json={**draft, "credentials": {**login, "password": wrong}}
        )
        assert refused.json()["context"]["errorCode"] == "AUTHENTICATION_FAILED"
        created = call("POST", "/connectors", json=draft)
        assert created.status_code == 201, created.text
        connector_id = created.json()["id"]
        body = {"endpointId": connector_id, "unitId": "shop.items"}
        run = lab.wait(call("POST", "/runs", json=body).json()["runId"])
        assert run.state is RunState.COMPLETED, run.error
        server.execute(f"ALTER USER reader@'%' IDENTIFIED BY '{new}'")
        failed = lab.wait(call("POST", "/runs", json=body).json()["runId"])
        assert failed.state is RunState.FAILED
        path = f"/connectors/{connector_id}/credentials"
        for password, status in ((wrong, 422), (new, 200)):
            changed = call("PUT", path, json={"credentials": {**login, "password": password}})
            assert changed.status_code == status, changed.text
        for listing in ("/connectors", "/notifications", "/runs", "/endpoints"):
            call("GET", listing)
        stored = lab.ports.metadata.get_endpoint(TENANT, EndpointId(connector_id)).credential_name
        assert lab.ports.credentials.get(TENANT, str(stored))["password"] == new

    # what `ray list` shows; the listing itself needs a dashboard, which this runtime does without
    state = ray._private.state
    listings = repr([state.actors(), state.jobs(), state.nodes(), ray.timeline()])
    assert "planner" in listings.lower()
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    for secret in (old, new, wrong):
        forms = forms_of(secret)
        assert [form for form in forms for answer in answers if form in answer] == []
        assert [form for form in forms if form in listings.encode()] == []
        assert files_that_hold(forms, runtime.settings.home, session / "logs") == []
