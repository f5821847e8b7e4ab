"""Sessions: whose they are, how long they live, and what is kept of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from matih_ray.agent.dialogue import Dialogue
from matih_ray.agent.sessions import MAX_SESSIONS, MemorySessions
from matih_ray.control.authorization import Role
from matih_ray.control.ports import utc_now
from tests.agent.lab import PATH, AgentLab, Chat, open_agent_lab
from tests.api.lab import assert_problem

SECRET = "S3cr3t-of-nobody!"
# Tables of the source in memory: a template that was derived from its configuration.
MEMORY = json.dumps({"tables": {"public.orders": 100, "public.items": 50}})


def dialogue(lab: AgentLab) -> Dialogue:
    found: Dialogue = lab.app.state.dialogue
    return found


def in_memory(lab: AgentLab) -> Chat:
    """A conversation about a source in memory, with its streams listed."""
    chat = lab.open()
    chat.say("memory")
    said = chat.say(f'{MEMORY[:-1]}, "password": "{SECRET}", "clientKey": "none"}}')
    assert chat.state == "select_streams", said
    return chat


def connectors(lab: AgentLab) -> list[str]:
    return [e.name for e in lab.ports.metadata.list_endpoints("acme", offset=0, limit=100)]


def test_any_type_is_set_up_from_its_configuration(lab: AgentLab):
    chat = in_memory(lab)
    assert connectors(lab) == ["memory"]
    for text in ("all", "ok", "go"):
        chat.say(text)
    assert chat.state == "execute"
    assert [o["problem"] for o in chat.last["data"]["outcomes"]] == [None, None]
    assert lab.client.request("DELETE", chat.path).status_code == 204
    assert connectors(lab) == ["memory"]


def test_a_connector_that_nothing_was_loaded_with_goes_with_its_conversation(lab: AgentLab):
    chat = in_memory(lab)
    chat.say("cancel")
    assert chat.state == "welcome"
    assert connectors(lab) == []
    chat = in_memory(lab)
    assert lab.client.request("DELETE", chat.path).status_code == 204
    assert connectors(lab) == []
    assert_problem(lab.client.get(chat.path), 404, "NOT_FOUND")


def test_a_second_connector_of_the_same_kind_gets_another_name(lab: AgentLab):
    in_memory(lab)
    in_memory(lab)
    assert connectors(lab) == ["memory", "memory-2"]


def test_a_session_is_seen_by_its_user_only(lab: AgentLab):
    chat = lab.open()
    engineer = Role.DATA_ENGINEER
    for headers in (
        lab.as_(engineer, subject="bob"),
        lab.as_(engineer, tenant="umbrella"),
        lab.as_(Role.ADMIN, subject="root"),
    ):
        for method, path, body in (
            ("GET", chat.path, None),
            ("POST", f"{chat.path}/chat", {"message": "help"}),
            ("DELETE", chat.path, None),
        ):
            answer = lab.client.request(method, path, json=body, headers=headers)
            assert_problem(answer, 404, "NOT_FOUND")
    assert chat.show()["state"] == "select_source_type"


def test_without_a_token_nobody_is_let_in(lab: AgentLab):
    named = {"X-Tenant-Id": "acme", "X-User-ID": "ann", "X-User-Roles": "ROLE_ADMIN"}
    answer = lab.client.request("POST", PATH, headers={"Authorization": "", **named})
    assert_problem(answer, 401, "UNAUTHENTICATED")


@pytest.fixture
def behind_gateway(tmp_path: Path) -> Iterator[AgentLab]:
    yield from open_agent_lab(tmp_path / "gateway", agent_trusts_gateway=True)


def test_behind_a_gateway_its_headers_say_who_is_asking(behind_gateway: AgentLab):
    lab = behind_gateway
    named = {
        "Authorization": "",
        "X-Tenant-Id": "acme",
        "X-User-ID": "ann",
        "X-User-Roles": "ROLE_DATA_ENGINEER, ROLE_OF_OTHERS",
    }
    opened = lab.client.request("POST", PATH, headers=named)
    assert opened.status_code == 201, opened.text
    path = f"{PATH}/{opened.json()['session_id']}"
    assert lab.client.get(path, headers=named).status_code == 200
    other = {**named, "X-User-ID": "bob"}
    assert_problem(lab.client.get(path, headers=other), 404, "NOT_FOUND")
    # a token says more than headers do
    headers = {**named, **lab.as_(Role.VIEWER, subject="eve")}
    assert_problem(lab.client.get(path, headers=headers), 404, "NOT_FOUND")


def test_who_may_not_connect_is_told_so(lab: AgentLab):
    viewer = lab.as_(Role.VIEWER, subject="vic")
    chat = lab.open(headers=viewer)
    chat.say("memory", headers=viewer)
    said = chat.say(
        f"tables: {json.dumps({'t': 1})}\npassword: none\nclient key: none", headers=viewer
    )
    assert "You don't have permission. Contact your administrator." in said
    assert connectors(lab) == []


def test_sessions_expire_after_a_day_without_a_message(lab: AgentLab):
    chat, other = lab.open(), lab.open()
    talking = dialogue(lab)
    late = utc_now() + timedelta(hours=23, minutes=59)
    talking.ports = replace(lab.ports, clock=lambda: late)
    assert other.say("help")
    later = late + timedelta(minutes=2)
    talking.ports = replace(lab.ports, clock=lambda: later)
    assert_problem(lab.client.get(chat.path), 404, "NOT_FOUND")
    assert lab.client.get(other.path).status_code == 200
    assert lab.await_(talking.evict) == 1


def test_a_full_replica_says_so(lab: AgentLab):
    assert MAX_SESSIONS == 10_000
    dialogue(lab).sessions = MemorySessions(max_sessions=2)
    first = lab.open()
    lab.open()
    assert_problem(lab.client.request("POST", PATH), 503, "SESSIONS_FULL")
    lab.client.request("DELETE", first.path)
    lab.open()


def test_messages_of_one_session_are_answered_one_after_the_other(lab: AgentLab):
    chat = lab.open()
    chat.say("postgres")
    fields = ["host: h.example.com", "port: 1", "database: d", "username: u"]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(chat.post, fields))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert chat.show()["data"]["missing_fields"] == ["password"]


@pytest.mark.parametrize(
    "messages",
    [
        [f"password: {SECRET}", f"as I said, {SECRET}"],
        [f"postgres://u:{SECRET}@127.0.0.1:1/d"],
        [f"my mysql password is {SECRET}", "postgres"],
        ["postgres", "127.0.0.1, 1, d, u", SECRET],
        ["postgres", SECRET],
        ["postgres", f'{{"host": "127.0.0.1", "secrets": {{"password": "{SECRET}"}}}}', SECRET],
        ["s3", "AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"],
        [f"export PGPASSWORD='{SECRET}'", "help"],
        ["postgres", f"u:{SECRET}@127.0.0.1:1/d", f"x{SECRET}y"],
        ["snowflake", f"password {SECRET}"],
    ],
)
def test_no_secret_is_kept_of_a_conversation(lab: AgentLab, messages: list[str]):
    chat = lab.open()
    said = "".join(chat.say(message) for message in messages)
    session = lab.await_(dialogue(lab).sessions.get, chat.last["session_id"])
    kept = session.to_json() + said + json.dumps(chat.show()) + repr(dialogue(lab).__dict__)
    assert SECRET not in kept
    assert "wJalrXUtnFEMI" not in kept
    files = b"".join(p.read_bytes() for p in lab.ports.settings.home.rglob("*") if p.is_file())
    assert SECRET.encode() not in files


def test_a_message_that_is_too_long_is_refused(lab: AgentLab):
    assert_problem(lab.open().post("x" * 20_000), 422, "VALIDATION_FAILED")


class AwayLauncher:
    """A launcher that is away as long as it is told."""

    def __init__(self) -> None:
        self.is_away = True

    def launch(self, tenant_id: str, run_id: str) -> None:
        if self.is_away:
            from matih_ray.errors import SourceUnavailableError

            raise SourceUnavailableError("the cluster is away; try again later")


def test_what_failed_is_tried_again_without_making_anything_twice(lab: AgentLab):
    launcher = AwayLauncher()
    talking = dialogue(lab)
    talking.ports = replace(lab.ports, launcher=launcher)
    chat = in_memory(lab)
    for text in ("all", "once a day", "ok"):
        chat.say(text)
    said = chat.say("go")
    assert "Connector `memory` is created." in said
    assert "the cluster is away" in said
    launcher.is_away = False
    chat.say("retry")
    outcomes = chat.last["data"]["outcomes"]
    assert all(o["run_id"] and o["schedule_id"] and not o["problem"] for o in outcomes)
    assert connectors(lab) == ["memory"]
    runs = lab.ports.metadata.list_runs("acme", limit=100)
    assert sorted(run.run_id for run in runs) == sorted(o["run_id"] for o in outcomes)
    chat.say("retry")
    assert len(lab.ports.metadata.list_runs("acme", limit=100)) == 2


def test_a_host_that_may_not_be_connected_is_doubted_at_once(tmp_path: Path):
    for lab in open_agent_lab(tmp_path / "home", ("POSTGRESQL",), hosts_denied="127.0.0.0/8"):
        chat = lab.open()
        chat.say("postgres")
        said = chat.say("host: 127.0.0.1")
        assert said.startswith("A doubt: sources may not be at 127.0.0.1")
        assert said.endswith("What is the Port (usually 5432)?")
        assert chat.last["data"]["missing_fields"][0] == "port"


def test_rows_go_where_the_user_said_and_later_runs_go_the_same_way(lab: AgentLab):
    chat = in_memory(lab)
    chat.say("orders")
    said = chat.say("destination: tape")
    assert "I do not know that destination. There are: " in said
    assert "raw" in said
    chat.say("destination: raw")
    assert chat.state == "configure_sync"
    assert chat.last["data"]["destination"] == "raw"
    assert "- Destination: `raw`" in chat.say("ok")
    chat.say("hourly")
    chat.say("ok")
    said = chat.say("go")
    [outcome] = chat.last["data"]["outcomes"]
    assert outcome["problem"] is None, said
    assert outcome["link"] == f"/api/v1/tenants/acme/runs/{outcome['run_id']}"
    assert outcome["link"] in said
    run = lab.ports.metadata.get_run("acme", outcome["run_id"])
    assert run.stream.sink_id == "raw"
    [schedule] = lab.ports.metadata.list_schedules("acme")
    assert schedule.sink_id == "raw"
    endpoint_id, unit_id = run.stream.endpoint_id, run.stream.unit_id
    found = lab.ports.metadata.get_unit_configurations("acme", endpoint_id, [unit_id])
    assert (found[unit_id].sink_id, found[unit_id].policy) == ("raw", run.policy)
