"""Several replicas over one Redis, some of which are killed."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from matih_ray.agent import sentences
from matih_ray.control.authorization import Role
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.redis import RedisServer
from tests.agent.lab import PATH
from tests.agent.replica import Replica, replica
from tests.api.lab import bearer

SECRET = "S3cr3t-of-n0body!"
TABLES = {"tables": {"public.orders": 100}, "clientKey": "none"}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with its stores made, so that replicas do not make them at the same time."""
    home = tmp_path_factory.mktemp("replicas") / "home"
    open_stores(Settings(home=home)).close()
    return home


@pytest.fixture(scope="module")
def second(home: Path, server: RedisServer) -> Iterator[Replica]:
    """The replica that nobody kills."""
    with replica(home, server.url) as second:
        yield second


class Talk:
    """One user's conversation with whichever replica."""

    def __init__(self, home: Path, tenant: str) -> None:
        self.headers = bearer(Settings(home=home), Role.DATA_ENGINEER, tenant=tenant)
        self.session = ""
        self.last: dict = {}

    def open(self, at: Replica) -> None:
        answer = httpx.post(at.url + PATH, headers=self.headers, trust_env=False)
        assert answer.status_code == 201, answer.text
        self.session = answer.json()["session_id"]

    def say(self, at: Replica, text: str) -> dict:
        answer = httpx.post(
            f"{at.url}{PATH}/{self.session}/chat",
            json={"message": text},
            headers=self.headers,
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        self.last = answer.json()
        return self.last

    def show(self, at: Replica) -> dict:
        path = f"{at.url}{PATH}/{self.session}"
        return httpx.get(path, headers=self.headers, trust_env=False).json()


def stored(server: RedisServer, home: Path) -> bytes:
    """Every byte that Redis or a file of ours holds."""
    client = redis.Redis(port=server.port)
    values = [client.hgetall(key) for key in client.scan_iter("*") if client.type(key) == b"hash"]
    client.close()
    files = [p for d in (home, server.directory) for p in d.rglob("*") if p.is_file()]
    return repr(values).encode() + b"".join(p.read_bytes() for p in files)


@pytest.fixture
def gate() -> Iterator[socket.socket]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_conversation_goes_on_elsewhere_when_its_replica_dies_in_a_connection_test(
    server: RedisServer,
    home: Path,
    second: Replica,
    postgres: PostgresServer,
    gate: socket.socket,
):
    postgres.execute("CREATE TABLE IF NOT EXISTS for_replicas (id int PRIMARY KEY)")
    talk = Talk(home, "acme")
    with replica(home, server.url) as first:
        talk.open(first)
        talk.say(first, "postgres")
        stalled = f"host: 127.0.0.1\nport: {gate.getsockname()[1]}\ndatabase: postgres"
        talk.say(second, f"{stalled}\nusername: {postgres.user}\nssl: off")

        def give_password() -> None:
            with pytest.raises(httpx.TransportError):
                talk.say(first, f"password: {SECRET}")

        testing = threading.Thread(target=give_password)
        testing.start()
        connection, _ = gate.accept()  # the connection test is under way
        assert talk.show(second)["state"] == "test_connection"
        first.kill()
        testing.join()
        connection.close()
        gate.close()
        said = talk.say(second, f"port: {postgres.port}")
        assert said["message"].startswith(sentences.RESUMED)
        assert "The connection test failed" in said["message"]
        # the secret that the first replica was given has reached the second one
        assert said["state"] == "select_streams", said
        assert SECRET.encode() not in stored(server, home)
        assert [turn["role"] for turn in talk.show(second)["history"]].count("user") == 4


# Before and after every effect it passes, too; each takes half a dozen seconds.
@pytest.mark.parametrize(
    ("when", "effect"),
    [(w, e) for w in ("before", "after") for e in ("connect", "discover", "execute")]
    if os.environ.get("AGENT_CRASHES") == "all"
    else [("after", "connect"), ("after", "execute")],
)
def test_an_effect_that_was_cut_off_is_done_once(
    server: RedisServer, home: Path, second: Replica, effect: str, when: str
):
    tenant = f"{effect}-{when}"
    talk = Talk(home, tenant)
    messages = ["memory", json.dumps({**TABLES, "password": SECRET}), "all", "hourly", "ok", "go"]
    with replica(home, server.url, f"--die-{when}", effect) as first:
        talk.open(first)
        left = list(messages)
        while left:
            try:
                talk.say(first, left.pop(0))
            except httpx.TransportError:
                break
        first.process.wait()
    said = talk.say(second, "continue")
    assert said["message"].startswith(sentences.RESUMED)
    for text in left:
        said = talk.say(second, text)
    assert said["state"] == "execute", said
    [outcome] = said["data"]["outcomes"]
    assert (outcome["problem"], bool(outcome["schedule_id"])) == (None, True), said
    stores = open_stores(Settings(home=home))
    assert [e.name for e in stores.metadata.list_endpoints(tenant)] == ["memory"]
    assert [run.run_id for run in stores.metadata.list_runs(tenant)] == [outcome["run_id"]]
    assert len(stores.metadata.list_schedules(tenant)) == 1
    stores.close()
    assert SECRET.encode() not in stored(server, home)


def test_messages_to_two_replicas_at_once_are_all_heard(
    server: RedisServer, home: Path, second: Replica
):
    talk = Talk(home, "both")
    with replica(home, server.url) as first:
        talk.open(first)
        talk.say(first, "postgres")
        fields = ["port: 1", "database: d", "username: u", "schema: s", "host: 127.0.0.1"]
        with ThreadPoolExecutor(5) as threads:
            list(threads.map(talk.say, [first, second] * 2 + [first], fields))
        assert talk.show(second)["data"]["missing_fields"] == ["password"]
        said = talk.say(second, f"it is {SECRET}, and again {SECRET}")
        assert SECRET not in json.dumps(said)
        assert httpx.delete(
            f"{first.url}{PATH}/{talk.session}", headers=talk.headers, trust_env=False
        ).is_success
        assert talk.show(second)["status"] == 404
    assert not list((home / "credentials").glob("both/agent-session-*"))
