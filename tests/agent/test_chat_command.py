"""`matih chat` against a served agent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from matih_ray.control.authorization import Role
from tests.agent.lab import AgentLab
from tests.api.server import serving

SECRET = "t0p-s3cret"


def talk(lab: AgentLab, typed: str) -> subprocess.CompletedProcess[str]:
    token = lab.as_(Role.DATA_ENGINEER)["Authorization"].removeprefix("Bearer ")
    with serving(lab.app) as url:
        return subprocess.run(
            [Path(sys.executable).with_name("matih"), "--url", url, "chat"],
            env={**os.environ, "MATIH_TOKEN": token},
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def test_a_conversation_is_held_line_by_line(lab: AgentLab):
    tables = '{"tables": {"public.orders": 10}, "clientKey": "none"}'
    done = talk(lab, f"memory\n{tables}\n{SECRET}\nall\nok\ngo\nexit\nnot said\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "Testing the connection to MEMORY …",
        "Looking for streams …",
        "Starting 1 run …",
    ]
    assert done.stdout.startswith("Welcome! What type of data source")
    assert "1 of 1 first runs are started" in done.stdout
    assert SECRET not in done.stdout
    assert len(lab.ports.metadata.list_endpoints("acme", offset=0, limit=10)) == 1


def test_the_end_of_the_input_ends_the_conversation_and_removes_its_draft(lab: AgentLab):
    done = talk(lab, 'memory\n{"tables": {"t": 1}, "password": "x", "clientKey": "none"}\n')
    assert done.returncode == 0, done.stderr
    assert "I found 1 stream:" in done.stdout
    assert lab.ports.metadata.list_endpoints("acme", offset=0, limit=10) == []
    assert lab.await_(lab.app.state.dialogue.sessions.evict, lab.ports.clock()) == []
