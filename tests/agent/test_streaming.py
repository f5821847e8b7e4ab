"""Answers as server-sent events, over a socket."""

from __future__ import annotations

import json
import socket
import threading

import httpx

from matih_ray.control.authorization import Role
from tests.agent.lab import PATH, AgentLab
from tests.api.server import serving

TABLES = json.dumps({"tables": {"public.orders": 100}, "password": "x-y-z", "clientKey": "none"})
EVENTS = {"Accept": "text/event-stream"}


def events(response: httpx.Response) -> list[tuple[str, dict]]:
    found = []
    for block in response.read().decode().strip().split("\n\n"):
        if block.startswith(":"):
            continue
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_progress_comes_before_the_answer_which_is_the_same_as_ever(lab: AgentLab):
    chat = lab.open()
    chat.say("memory")
    answer = chat.post(TABLES, headers=EVENTS)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer)
    assert [kind for kind, _ in told] == ["progress", "progress", "answer"]
    assert told[0][1] == {"message": "Testing the connection to MEMORY …"}
    body = told[-1][1]
    shown = chat.show()
    assert body == {name: shown[name] for name in body}
    assert body["state"] == "select_streams"


def test_a_turn_that_takes_no_time_has_an_answer_only(lab: AgentLab):
    assert [kind for kind, _ in events(lab.open().post("postgres", headers=EVENTS))] == ["answer"]


def test_a_session_that_is_not_there_is_a_problem_as_ever(lab: AgentLab):
    answer = lab.client.request(
        "POST", f"{PATH}/nobody/chat", json={"message": "hi"}, headers=EVENTS
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_who_hangs_up_finds_the_turn_done(lab: AgentLab):
    """The caller leaves while the connection is tested; the session is neither stuck nor lost."""
    headers = {**lab.as_(Role.DATA_ENGINEER), **EVENTS}
    with serving(lab.app) as url, socket.create_server(("127.0.0.1", 0)) as gate:
        path = f"{url}{PATH}"
        with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
            session = client.post(path).json()["session_id"]
            text = f"postgres at 127.0.0.1 port {gate.getsockname()[1]}, database d, user u, no ssl"
            client.post(f"{path}/{session}/chat", json={"message": text}).read()
            said = {"message": "password: p-q-r-s"}
            with client.stream("POST", f"{path}/{session}/chat", json=said) as response:
                first = next(response.iter_lines())
                assert first == "event: progress"
            threading.Timer(0.2, gate.close).start()
            again = client.post(f"{path}/{session}/chat", json={"message": "show"}).read().decode()
            assert '"state":"test_connection"' in again
            shown = client.get(f"{path}/{session}").json()
    agent = [turn["message"] for turn in shown["history"] if turn["role"] == "agent"]
    assert any("connection test failed" in message for message in agent)
