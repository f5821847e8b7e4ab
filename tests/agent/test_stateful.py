"""Whatever is said, at once and through restarts: nothing gets stuck, breaks or keeps a secret.

The machine refuses a transition that is not declared, so an illegal one would be a 5xx. More
examples: `AGENT_EXAMPLES=200`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import redis
from anyio.from_thread import start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from matih_ray.agent.conversation import State
from matih_ray.api.agent_app import create_agent_app
from matih_ray.control.authorization import Role
from matih_ray.control.ports import Ports
from matih_ray.settings import Settings
from matih_ray.state.factory import open_stores
from matih_ray.testing.devstack.redis import RedisServer
from matih_ray.testing.fakes import InlineLauncher
from tests.agent.lab import PATH, registry_of
from tests.api.lab import bearer

EXAMPLES = int(os.environ.get("AGENT_EXAMPLES", "12"))
# With the number of the example in them: the store is the same for all.
SECRETS = ("Qz7-cAnary-{}-One!", "canary/{}/two+Wx41", "cAn4ry{}")
MEMORY = json.dumps({"tables": {"public.orders": 9, "public.items": 3}, "clientKey": "none"})
TEXTS = st.sampled_from(
    ["postgres", "memory", "mysql", "s3", MEMORY, "host: 127.0.0.1", "port: 1", "port: x",
     "database: d", "user bob", "all", "1", "orders", "all but items", "ok", "go", "yes", "back",
     "cancel", "help", "start over", "retry", "show", "full", "orders incremental by id", "hourly",
     "every night at 2", "drop orders", "add items", "streams", "nonsense here", "once", "start",
     "destination: nowhere", "cdc", "name: n", "\x00", "{}", "🙂", "postgres://u@127.0.0.1:1/d"]
)  # fmt: skip
FORMS = st.sampled_from(
    ["password: {}", "postgres://bob:{}@127.0.0.1:1/d", "my password is {}", "PGPASSWORD='{}'",
     '{{"password": "{}", "clientKey": "{}"}}', "client key: {}", "secret access key = {}"]
)  # fmt: skip


class Conversations(RuleBasedStateMachine):
    """One user's session on two replicas that come and go."""

    tenants = itertools.count()
    home: Path
    redis_server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.settings = Settings(home=self.home, agent_sessions_url=self.redis_server.url)
        self.stores = open_stores(self.settings)
        launcher = InlineLauncher()
        self.ports = launcher.attach(
            Ports(
                settings=self.settings,
                registry=registry_of(("MEMORY", "POSTGRESQL")),
                metadata=self.stores.metadata,
                kv=self.stores.kv,
                credentials=self.stores.credentials,
                launcher=launcher,
            )
        )
        self.apps = [create_agent_app(self.ports) for _ in range(2)]
        number = next(self.tenants)
        self.secrets = [secret.format(number) for secret in SECRETS]
        tenant = f"tenant-{number}"
        self.headers = bearer(self.settings, Role.DATA_ENGINEER, tenant=tenant)
        self.state = State.WELCOME
        self.given: set[str] = set()

    @initialize()
    def open(self) -> None:
        [opened] = self.sent([("POST", "", None)])
        assert opened.status_code == 201
        self.path = f"/{opened.json()['session_id']}"

    @rule(text=TEXTS)
    def say(self, text: str) -> None:
        self.said([text])

    @rule(which=st.integers(0, 2), form=FORMS)
    def give(self, which: int, form: str) -> None:
        secret = self.secrets[which]
        self.given.add(secret)
        self.said([form.format(secret, secret)])

    @rule(which=st.integers(0, 2))
    def repeat(self, which: int) -> None:
        """What was given, in the middle of something else; only then it can be recognised."""
        secret = self.secrets[which]
        if secret in self.given:
            self.said([f"as I said x{secret} it is"])

    @rule(texts=st.lists(TEXTS, min_size=2, max_size=4))
    def say_at_once(self, texts: list[str]) -> None:
        self.said(texts)

    @rule(number=st.integers(0, 1))
    def restart(self, number: int) -> None:
        self.portal.call(self.apps[number].state.dialogue.stop)
        self.apps[number] = create_agent_app(self.ports)

    @invariant()
    def nothing_is_left_undone(self) -> None:
        if hasattr(self, "path"):
            [shown] = self.sent([("GET", self.path, None)])
            assert shown.status_code == 200
            assert State(shown.json()["state"])

    def said(self, texts: list[str]) -> None:
        body = [("POST", f"{self.path}/chat", {"message": text}) for text in texts]
        for answer in self.sent(body):
            assert answer.status_code == 200, answer.text
            assert answer.json()["message"], answer.text
            assert not [secret for secret in self.given if secret in answer.text]

    def sent(self, requests: list[tuple[str, str, dict | None]]) -> list[httpx.Response]:
        """Answers to requests that are sent at once, to the replicas in turn."""

        async def all_at_once() -> list[httpx.Response]:
            clients = [
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="http://api", headers=self.headers
                )
                for app in self.apps
            ]
            return await asyncio.gather(
                *(
                    clients[index % 2].request(method, PATH + path, json=body)
                    for index, (method, path, body) in enumerate(requests)
                )
            )

        return self.portal.call(all_at_once)

    def teardown(self) -> None:
        try:
            # from wherever it stands, the way to the streams is open
            for text in ("start over", "memory", MEMORY, "password: none"):
                self.said([text])
            [shown] = self.sent([("GET", self.path, None)])
            assert shown.json()["state"] == "select_streams", shown.text
            kept = self.everything_stored()
            assert not [secret for secret in self.secrets if secret.encode() in kept]
            [deleted] = self.sent([("DELETE", self.path, None)])
            assert deleted.status_code == 204
            assert not list((self.home / "credentials").glob("*/agent-session-*"))
        finally:
            for app in self.apps:
                self.portal.call(app.state.dialogue.stop)
            self.stores.close()
            self.stack.close()

    def everything_stored(self) -> bytes:
        """Every byte in Redis, its log of all writes included, and in the files of the home."""
        client = redis.Redis(port=self.redis_server.port)
        found = [client.hgetall(k) for k in client.scan_iter("*") if client.type(k) == b"hash"]
        client.close()
        assert found, "a store without sessions would prove nothing"
        files = [f for d in (self.home, self.redis_server.directory) for f in d.rglob("*")]
        return repr(found).encode() + b"".join(f.read_bytes() for f in files if f.is_file())


def test_no_conversation_gets_stuck_breaks_or_keeps_a_secret():
    with RedisServer() as server, tempfile.TemporaryDirectory() as directory:
        Conversations.home, Conversations.redis_server = Path(directory) / "home", server
        runner = settings(max_examples=EXAMPLES, stateful_step_count=15, deadline=None)
        machine = type("ConversationsHere", (Conversations,), {})
        machine.TestCase.settings = runner
        machine.TestCase().runTest()
