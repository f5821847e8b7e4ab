"""The command as its own process: on a terminal, without one, and interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from matih_ray.control.authorization import Role
from matih_ray.control.building import endpoint_spec
from matih_ray.model.ids import EndpointId, RunId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.run import RunState
from matih_ray.testing.fakes import RecordingLauncher
from tests.api.lab import PASSWORD, TENANT, Lab, open_lab
from tests.api.server import serving, token_of

TIMEOUT_S = 120


@pytest.fixture
def watched() -> threading.Event:
    """Set once somebody has asked how a run is getting on."""
    return threading.Event()


@pytest.fixture
def served(tmp_path: Path, watched: threading.Event) -> Iterator[tuple[Lab, dict[str, str]]]:
    """A lab whose runs stay QUEUED, and the environment of a caller."""
    for lab in open_lab(tmp_path / "home", RecordingLauncher()):

        async def app(scope, receive, send, lab=lab):
            if b"sinceVersion" in scope["query_string"]:
                watched.set()
            await lab.app(scope, receive, send)

        with serving(app) as url:
            token = token_of(lab, Role.DATA_ENGINEER)
            yield lab, {**os.environ, "MATIH_URL": url, "MATIH_TOKEN": token, "TERM": "xterm"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from matih_ray.cli import main; main()", *arguments]


def advance(lab: Lab, run_id: str, **changes) -> None:
    run = lab.ports.metadata.get_run(TENANT, RunId(run_id))
    lab.ports.metadata.update_run(run.model_copy(update=changes))


def planned(endpoint_id: str) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=EndpointId(endpoint_id),
        unit_id="public.orders",
        strategy="two-halves",
        slices=tuple(IngestionSlice(key=str(n), sequence=n, estimated_rows=500) for n in range(2)),
    )


def test_importing_the_command_and_the_api_does_not_import_ray():
    program = (
        "import sys, matih_ray.cli, matih_ray.api.app, matih_ray.cli.service;"
        "print([name for name in sys.modules if name.split('.')[0] == 'ray'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_the_console_script_is_the_command():
    from importlib.metadata import entry_points

    (script,) = [point for point in entry_points(group="console_scripts") if point.name == "matih"]
    assert script.value == "matih_ray.cli:main"


def test_progress_without_a_terminal_is_a_line_for_each_change(served):
    lab, environment = served
    endpoint_id = lab.endpoint("shop")
    process = subprocess.Popen(
        command("run", "shop", "public.orders"),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = iter(process.stdout.readline, "")
    run_id = next(lines).removeprefix("run ").strip()
    assert next(lines) == "QUEUED\t0/? slices\t0 rows\n"
    now = lab.ports.clock()
    running = {"state": RunState.RUNNING, "epoch": 1, "started_at": now}
    advance(lab, run_id, plan=planned(endpoint_id), **running)
    assert next(lines) == "RUNNING\t0/2 slices\t0 rows\n"
    advance(lab, run_id, through=1, rows=500)
    assert next(lines) == "RUNNING\t1/2 slices\t500 rows\n"
    done = {"state": RunState.COMPLETED, "through": 2, "rows": 1000}
    advance(lab, run_id, finished_at=lab.ports.clock(), **done)
    rest = list(lines)
    assert rest[0].startswith("COMPLETED\t2/2 slices\t1000 rows\t")
    assert rest[1].startswith("COMPLETED: 1,000 rows, ")
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("extra", [[], ["--json"]], ids=["text", "json"])
def test_an_interrupted_command_leaves_the_run_going_and_says_how_to_go_on(
    served, watched: threading.Event, extra: list[str]
):
    lab, environment = served
    lab.endpoint("shop")
    process = subprocess.Popen(
        command("run", "shop", "public.orders", *extra),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watched.wait(TIMEOUT_S)
    (run,) = lab.call("GET", "/runs").json()["items"]
    run_id = run["runId"]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, errors
    assert errors.startswith(f"run {run_id} goes on. Follow it: ")
    assert f"matih runs show {run_id} --follow" in errors
    assert f"matih runs cancel {run_id}" in errors
    assert "Traceback" not in errors
    assert out == ("" if extra else f"run {run_id}\nQUEUED\t0/? slices\t0 rows\n")
    run = lab.ports.metadata.get_run(TENANT, RunId(run_id))
    assert (run.state, run.requested) == (RunState.QUEUED, None)


@contextmanager
def on_a_terminal(arguments: list[str], environment: dict[str, str]):
    """A process whose output goes to a terminal; yields it and the terminal's other end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env={**environment, "COLUMNS": "120", "LINES": "30"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
        process.wait(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(descriptor: int, pattern: str) -> str:
    """What a terminal shows until the pattern appears; fails when it closes before.

    A prompt ends in a space, which appears once the terminal does not echo any more.
    """
    seen = ""
    while not re.search(pattern, seen):
        try:
            part = os.read(descriptor, 65536).decode(errors="replace")
        except OSError:
            part = ""
        assert part, f"closed without {pattern!r}: {seen!r}"
        seen += part
    return seen


def read_all(descriptor: int) -> str:
    seen = ""
    while True:
        try:
            part = os.read(descriptor, 65536).decode(errors="replace")
        except OSError:
            return seen
        if not part:
            return seen
        seen += part


def test_a_terminal_shows_a_bar_that_moves(served):
    lab, environment = served
    endpoint_id = lab.endpoint("shop")
    with on_a_terminal(["run", "shop", "public.orders"], environment) as (process, terminal):
        seen = read_until(terminal, r"QUEUED")
        run_id = re.search(r"run ([0-9a-f]{32})", seen)[1]
        running = {"state": RunState.RUNNING, "epoch": 1, "started_at": lab.ports.clock()}
        advance(lab, run_id, plan=planned(endpoint_id), through=1, rows=500, **running)
        read_until(terminal, r"1/2 slices.*500 rows")
        done = {"state": RunState.COMPLETED, "through": 2, "rows": 1000}
        advance(lab, run_id, finished_at=lab.ports.clock(), **done)
        assert "COMPLETED: 1,000 rows" in read_all(terminal)
    assert process.returncode == 0


def test_a_secret_is_asked_for_and_never_shown(served):
    lab, environment = served
    arguments = ["endpoints", "add", "shop", "--type", "MEMORY"]
    with on_a_terminal(arguments, environment) as (process, terminal):
        seen = read_until(terminal, r"password \(hidden, empty for none\): ")
        os.write(terminal, f"{PASSWORD}\n".encode())
        seen += read_until(terminal, r"clientKey \(hidden, empty for none\): ")
        os.write(terminal, b"\n")
        seen += read_all(terminal)
    assert process.returncode == 0, seen
    assert PASSWORD not in seen
    created = lab.call("GET", "/endpoints", params={"name": "shop"}).json()["items"][0]
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(created["endpointId"]))
    assert spec.secrets == {"password": PASSWORD}


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_a_terminal_is_asked_before_a_deletion(served, answer: bytes, code: int):
    lab, environment = served
    lab.endpoint("shop")
    with on_a_terminal(["endpoints", "delete", "shop"], environment) as (process, terminal):
        read_until(terminal, r"\[y/N\]")
        os.write(terminal, answer)
        read_all(terminal)
    assert process.returncode == code
    assert len(lab.call("GET", "/endpoints").json()["items"]) == code


def test_tables_on_a_terminal_keep_names_harmless(served):
    lab, environment = served
    lab.endpoint("shop", tables={"evil\x1b[2J": 1, "[bold]markup[/bold]": 1})
    with on_a_terminal(["units", "shop"], environment) as (_, terminal):
        seen = read_all(terminal)
    assert "evil\\x1b[2J" in seen
    assert "\x1b[2J" not in seen
    assert "[bold]markup[/bold]" in seen


def test_json_is_the_same_for_a_terminal(served):
    lab, environment = served
    lab.endpoint("shop")
    with on_a_terminal(["units", "shop", "--json"], environment) as (_, terminal):
        seen = read_all(terminal)
    assert len(json.loads(seen)) == 3
    assert "\x1b" not in seen
