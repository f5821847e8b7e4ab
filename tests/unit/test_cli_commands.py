"""Every command against a real control API: what it prints, what it changes, how it exits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from matih_ray.cli import main
from matih_ray.control.authorization import Role
from matih_ray.control.building import endpoint_spec
from matih_ray.errors import StateError
from matih_ray.model.ids import EndpointId, RunId, UnitId
from matih_ray.model.run import RunState
from matih_ray.model.unit import ColumnDescriptor, Fidelity
from matih_ray.testing.fakes import InlineLauncher, RecordingLauncher
from tests.api.lab import PASSWORD, TABLES, TENANT, Lab, open_lab
from tests.api.server import serving, token_of


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Matih = Callable[..., Result]


@pytest.fixture
def matih(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Matih:
    """Run the command in this process; no terminal is near."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["matih", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        out, err = capfd.readouterr()
        assert "\x1b" not in out + err, "control characters without a terminal"
        return Result(code, out, err)

    return run


@pytest.fixture
def launcher() -> RecordingLauncher:
    return InlineLauncher()


@pytest.fixture
def lab(
    tmp_path: Path, launcher: RecordingLauncher, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    # the server is in this process, and its log must not get into what the command prints
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    for opened in open_lab(tmp_path / "home", launcher):
        with serving(opened.app) as url:
            monkeypatch.setenv("MATIH_URL", url)
            monkeypatch.setenv("MATIH_TOKEN", token_of(opened, Role.DATA_ENGINEER))
            yield opened
    structlog.reset_defaults()


def tables(**more: int) -> str:
    return f"tables:={json.dumps({**TABLES, **more})}"


# --- endpoints -------------------------------------------------------------------------------


def test_an_endpoint_is_added_with_its_secret_from_the_environment(
    lab: Lab, matih: Matih, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATIH_SECRET_PASSWORD", PASSWORD)
    monkeypatch.setenv("MATIH_SECRET_CLIENT_KEY", "pem")
    added = matih("endpoints", "add", "shop", "--type", "MEMORY", "--config", tables(), "--json")
    assert added.code == 0, added.err
    assert added.json["hasSecrets"] is True
    assert PASSWORD not in added.out + added.err
    spec = endpoint_spec(lab.ports, TENANT, EndpointId(added.json["endpointId"]))
    assert spec.secrets == {"password": PASSWORD, "clientKey": "pem"}


def test_secrets_cannot_be_arguments(lab: Lab, matih: Matih):
    given = f"password={PASSWORD}"
    refused = matih("endpoints", "add", "shop", "--type", "MEMORY", "--config", given)
    assert refused.code == 2
    assert "config.password looks like a secret" in refused.err
    assert PASSWORD not in refused.err
    for option in ("--password", "--secret"):
        assert matih("endpoints", "add", "a", "--type", "MEMORY", option, "x").code == 2


def test_text_in_the_configuration_becomes_what_the_type_declares(lab: Lab, matih: Matih):
    config = ["host=db", "database=123", "user=me", "port=6543", "lockTimeoutS=2"]
    options = [part for pair in config for part in ("--config", pair)]
    added = matih("endpoints", "add", "pg", "--type", "POSTGRESQL", *options, "--json")
    stored = added.json["config"]
    assert (stored["port"], stored["database"], stored["lockTimeoutS"]) == (6543, "123", 2.0)


def test_endpoints_are_listed_shown_and_deleted(lab: Lab, matih: Matih):
    endpoint_id = lab.endpoint("shop")
    lab.endpoint("shed", collect=False)
    listed = matih("endpoints", "list")
    assert [row[0] for row in listed.rows] == ["NAME", "shed", "shop"]
    assert [e["name"] for e in matih("endpoints", "list", "--json").json] == ["shed", "shop"]
    for reference in ("shop", endpoint_id):
        shown = dict(row for row in matih("endpoints", "show", reference).rows if len(row) == 2)
        assert (shown["name"], shown["secrets"]) == ("shop", "yes")
    assert matih("endpoints", "show", "shop", "--json").json["endpointId"] == endpoint_id
    assert matih("endpoints", "delete", "shop", "--yes").code == 0
    gone = matih("endpoints", "show", "shop")
    assert (gone.code, "no endpoint has the name or id 'shop'" in gone.err) == (2, True)


def test_nothing_is_deleted_without_a_yes(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    refused = matih("endpoints", "delete", "shop")
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    assert matih("endpoints", "show", "shop").code == 0


def test_a_connection_is_tested_and_the_answer_is_the_exit_code(lab: Lab, matih: Matih):
    lab.endpoint("good", collect=False)
    lab.endpoint("bad", collect=False, failsAt="test", failsWith="DNS_RESOLUTION_FAILED")
    good, bad = matih("endpoints", "test", "good"), matih("endpoints", "test", "bad")
    assert (good.code, good.out) == (0, "ok: Memory 1.0 answered in 0 ms\n")
    assert (bad.code, bad.out) == (1, "failed: told to fail at test [DNS_RESOLUTION_FAILED]\n")
    as_json = matih("endpoints", "test", "bad", "--json")
    assert (as_json.code, as_json.json["success"]) == (1, False)


def test_a_catalog_is_collected_and_what_is_left_out_is_named(lab: Lab, matih: Matih):
    lab.endpoint("shop", collect=False)
    assert matih("endpoints", "collect", "shop").out == "3 units collected\n"
    assert matih("endpoints", "collect", "shop", "--pattern", "sales.*").out.startswith("1 ")
    lab.endpoint("shut", collect=False, failsAt="describe", failsWith="PERMISSION_DENIED")
    shut = matih("endpoints", "collect", "shut")
    assert "3 units could not be described" in shut.err
    assert "public.orders: told to fail at describe [PERMISSION_DENIED]" in shut.err
    assert matih("endpoints", "collect", "shut", "--json").json["skippedTotal"] == 3


# --- units and plans -------------------------------------------------------------------------


def test_units_are_listed_and_their_columns_shown(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    assert [row[0] for row in matih("units", "shop").rows] == [
        "UNIT",
        "public.items",
        "public.orders",
        "sales.empty",
    ]
    filtered = matih("units", "shop", "--pattern", "*.orders", "--json").json
    assert [unit["unitId"] for unit in filtered] == ["public.orders"]
    columns = matih("units", "shop", "public.orders").rows
    assert [(row[0], row[3]) for row in columns[1:]] == [
        ("id", "exact"),
        ("note", "exact"),
        ("score", "widened"),
        ("tags", "encoded"),
    ]
    assert matih("units", "shop", "public.orders", "--json").json["primaryKey"] == ["id"]


def test_an_empty_catalog_tells_what_to_do(lab: Lab, matih: Matih):
    lab.endpoint("shop", collect=False)
    empty = matih("units", "shop")
    assert "matih endpoints collect shop" in empty.err
    assert matih("units", "shop", "--json").json == []


def test_more_units_than_a_page_are_all_listed(lab: Lab, matih: Matih):
    lab.endpoint("big", tables={f"t{number:04}": 1 for number in range(1203)})
    assert len(matih("units", "big", "--json").json) == 1203


def test_names_cannot_play_tricks_on_a_terminal(lab: Lab, matih: Matih):
    lab.endpoint("shop", tables={"evil\x1b[2J\n\tunit\u202e": 1})
    listed = matih("units", "shop")
    assert listed.rows[1][0] == "evil\\x1b[2J\\n\\tunit\\u202e"
    assert matih("units", "shop", "--json").json[0]["unitId"] == "evil\x1b[2J\n\tunit\u202e"
    assert matih("run", "shop", "evil\x1b[2J\n\tunit\u202e").code == 0


def test_a_plan_is_printed_and_nothing_is_started(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    plan = matih("plan", "shop", "public.orders", "--policy", "targetSliceRows=400")
    assert [row[1] for row in plan.rows[1:4]] == ["id:0-400", "id:400-800", "id:800-1000"]
    assert ["slices", "3"] in plan.rows
    assert ["rows", "1000"] in plan.rows
    as_json = matih("plan", "shop", "public.orders", "--policy", "targetSliceRows:=500", "--json")
    assert len(as_json.json["slices"]) == 2
    assert lab.launcher.launched == []


def test_a_long_plan_is_cut_unless_all_of_it_is_asked_for(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    options = ["plan", "shop", "public.orders", "--policy", "targetSliceRows=10"]
    cut = matih(*options)
    assert "50 more slices" in cut.err
    assert sum(row[1].startswith("id:") for row in cut.rows) == 50
    assert sum(row[1].startswith("id:") for row in matih(*options, "--all").rows) == 100


# --- runs ------------------------------------------------------------------------------------


def test_a_run_is_watched_to_its_end(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    done = matih("run", "shop", "public.orders", "--policy", "targetSliceRows=300")
    assert done.code == 0
    assert done.rows[0][0].startswith("run ")
    assert done.rows[-2][:3] == ["COMPLETED", "4/4 slices", "1000 rows"]
    assert done.out.splitlines()[-1].startswith("COMPLETED: 1,000 rows into memory.orders")


def test_a_run_as_json_is_one_document(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    done = matih("run", "shop", "public.orders", "--json")
    assert len(done.out.splitlines()) == 1
    assert (done.json["state"], done.json["rows"]) == ("COMPLETED", 1000)
    assert done.err == ""


def test_a_failed_run_exits_with_1_and_says_how_to_go_on(lab: Lab, matih: Matih):
    lab.endpoint("shop", failsAt="read", failsWith="PERMISSION_DENIED")
    failed = matih("run", "shop", "public.orders")
    assert failed.code == 1
    assert "error: told to fail at read [PERMISSION_DENIED]" in failed.err
    assert "matih runs resume" in failed.err
    as_json = matih("run", "shop", "public.items", "--json")
    assert (as_json.code, as_json.json["error"]["code"]) == (1, "PERMISSION_DENIED")


def test_incremental_runs_read_what_is_new(lab: Lab, matih: Matih):
    endpoint_id = lab.endpoint("shop")
    options = ["run", "shop", "public.orders", "--incremental", "--cursor", "id", "--json"]
    assert [matih(*options).json["rows"] for _ in range(2)] == [1000, 0]
    change = {"config": {"tables": {"public.orders": 1234}}}
    lab.call("PUT", f"/endpoints/{endpoint_id}", json=change)
    assert matih(*options).json["rows"] == 234


def test_fidelity_is_printed_for_the_chosen_columns(lab: Lab, matih: Matih):
    endpoint_id = EndpointId(lab.endpoint("shop"))
    unit = lab.ports.metadata.get_unit(TENANT, endpoint_id, UnitId("public.orders"))
    refused = ColumnDescriptor(
        name="shape",
        native_type="path",
        arrow_type="null",
        fidelity=Fidelity.REFUSED,
        encoding="no exact form",
    )
    more = unit.model_copy(update={"columns": (*unit.columns, refused)})
    lab.ports.metadata.put_unit(TENANT, more)
    printed = matih("run", "shop", "public.orders", "--fidelity", "--no-wait")
    assert [row[3:] for row in printed.rows[1:6]] == [
        ["exact", "-"],
        ["exact", "-"],
        ["widened", "-"],
        ["encoded", "json"],
        ["refused", "no exact form"],
    ]
    chosen = 'columns:=["id","tags"]'
    options = ["run", "shop", "public.items", "--fidelity", "--policy", chosen, "--json"]
    found = matih(*options).json["fidelity"]
    assert [(column["name"], column["fidelity"]) for column in found] == [
        ("id", "exact"),
        ("tags", "encoded"),
    ]


def test_one_key_starts_one_run(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    options = ["run", "shop", "public.orders", "--key", "nightly-2026-11-21", "--json"]
    assert matih(*options).json["runId"] == matih(*options).json["runId"]


def test_runs_are_listed_shown_and_taken_apart(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    policy = ["--policy", "targetSliceRows=500"]
    first = matih("run", "shop", "public.orders", *policy, "--json").json["runId"]
    second = matih("run", "shop", "public.items", "--json").json["runId"]
    assert [row[0] for row in matih("runs", "list").rows] == ["RUN", second, first]
    assert [run["runId"] for run in matih("runs", "list", "--limit", "1", "--json").json] == [
        second
    ]
    options = ["--endpoint", "shop", "--unit", "public.orders", "--state", "completed"]
    assert [row[0] for row in matih("runs", "list", *options).rows[1:]] == [first]
    shown = dict(matih("runs", "show", first).rows)
    assert (shown["state"], shown["rows"], shown["progress"]) == ("COMPLETED", "1000", "100%")
    assert matih("runs", "show", first, "--follow").out.startswith("COMPLETED")
    assert matih("runs", "show", first, "--json").json["runId"] == first
    assert [row[1:5] for row in matih("runs", "slices", first).rows[1:]] == [
        ["id:0-500", "COMMITTED", "1", "500"],
        ["id:500-1000", "COMMITTED", "1", "500"],
    ]
    assert len(matih("runs", "slices", first, "--json").json) == 2


@pytest.mark.parametrize("launcher", [RecordingLauncher()])
def test_a_run_is_paused_and_cancelled(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    run_id = matih("run", "shop", "public.orders", "--no-wait", "--json").json["runId"]
    assert matih("runs", "pause", run_id).out == f"run {run_id} is PAUSED\n"
    assert matih("runs", "resume", run_id).out == f"run {run_id} is QUEUED\n"
    run = lab.ports.metadata.get_run(TENANT, RunId(run_id))
    lab.ports.metadata.update_run(run.model_copy(update={"state": RunState.RUNNING, "epoch": 1}))
    assert matih("runs", "cancel", run_id).out == f"run {run_id} is asked to cancel\n"
    assert matih("runs", "cancel", run_id, "--json").json["requested"] == "CANCEL"
    shown = dict(matih("runs", "show", run_id).rows)
    assert (shown["state"], shown["asked to"]) == ("RUNNING", "cancel")


@pytest.mark.parametrize("launcher", [InlineLauncher(stop_after=1)])
def test_a_paused_run_is_resumed_and_followed(lab: Lab, matih: Matih, launcher: InlineLauncher):
    lab.endpoint("shop")
    paused = matih("run", "shop", "public.orders", "--policy", "targetSliceRows=600", "--json")
    assert (paused.code, paused.json["state"], paused.json["rows"]) == (1, "PAUSED", 600)
    launcher.stop_after = None
    resumed = matih("runs", "resume", paused.json["runId"], "--follow", "--json")
    assert (resumed.code, resumed.json["state"], resumed.json["rows"]) == (0, "COMPLETED", 1000)


def test_a_checkpoint_is_shown_and_reset(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    run_id = matih("run", "shop", "public.orders", "--cursor", "id", "--json").json["runId"]
    shown = dict(matih("state", "show", "shop", "public.orders").rows)
    assert (shown["cursor"], shown["cursor column"], shown["written by"]) == ("1000", "id", run_id)
    assert matih("state", "reset", "shop", "public.orders").code == 2  # nobody said yes
    assert matih("state", "reset", "shop", "public.orders", "--yes").code == 0
    as_json = matih("state", "show", "shop", "public.orders", "--json").json
    assert (as_json["checkpoint"], as_json["lastRunId"]) == (None, run_id)


# --- getting in, and exit codes --------------------------------------------------------------


def test_a_token_is_made_from_the_local_key(
    lab: Lab, matih: Matih, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATIH_HOME", str(lab.ports.settings.home))
    made = matih("token", "--tenant", TENANT, "--role", "ROLE_VIEWER")
    assert made.code == 0
    monkeypatch.setenv("MATIH_TOKEN", made.out.strip())
    assert matih("endpoints", "list").code == 0
    denied = matih("endpoints", "add", "a", "--type", "MEMORY")
    assert (denied.code, "[FORBIDDEN]" in denied.err) == (2, True)
    assert matih("token", "--role", "ROLE_KING").code == 2
    assert matih("token", "--lifetime-s", "1").code == 2


def test_no_token_is_made_without_a_key(
    matih: Matih, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MATIH_HOME", str(tmp_path))
    refused = matih("token")
    assert (refused.code, refused.out) == (3, "")
    assert "no key file" in refused.err


def test_health_needs_no_token(lab: Lab, matih: Matih, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MATIH_TOKEN")
    assert matih("health").out == "ok\n"
    assert matih("health", "--json").json == {"status": "ok"}


@pytest.mark.parametrize("token", [None, "", "nonsense", "a.b.c", "a.e30.c"])
def test_without_a_token_that_could_be_one_nothing_is_sent(
    matih: Matih, monkeypatch: pytest.MonkeyPatch, token: str | None
):
    if token is not None:
        monkeypatch.setenv("MATIH_TOKEN", token)
    refused = matih("--url", "http://127.0.0.1:1", "endpoints", "list")
    assert (refused.code, "MATIH_TOKEN" in refused.err) == (3, True)


def test_a_refused_token_is_the_environments_fault(
    lab: Lab, matih: Matih, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATIH_TOKEN", token_of(lab, Role.ADMIN)[:-2] + "xx")
    refused = matih("endpoints", "list")
    assert (refused.code, "[UNAUTHENTICATED]" in refused.err) == (3, True)


def test_an_api_that_cannot_be_reached_is_the_environments_fault(lab: Lab, matih: Matih):
    for url in ("http://127.0.0.1:1", "http://", "not a url"):
        refused = matih("--url", url, "endpoints", "list")
        assert (refused.code, "cannot reach the control API" in refused.err) == (3, True), url


async def somebody_else(scope, receive, send):
    headers = [(b"content-type", b"text/html")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"<html>hello</html>"})


def test_an_answer_from_somebody_else_is_said_to_be_that(lab: Lab, matih: Matih):
    with serving(somebody_else) as url:
        for command in (["endpoints", "list"], ["health"], ["endpoints", "add", "a", "--type=M"]):
            refused = matih("--url", url, *command)
            assert (refused.code, "is not the control API's" in refused.err) == (3, True)


class Broken(RecordingLauncher):
    """A launcher with a bug, or whose store is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def launch(self, tenant_id: str, run_id: str) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("launcher", "code"),
    [(Broken(RuntimeError("bug")), 70), (Broken(StateError("no store")), 3)],
)
def test_whose_fault_it_is_can_be_read_from_the_exit_code(lab: Lab, matih: Matih, code: int):
    lab.endpoint("shop")
    assert matih("run", "shop", "public.orders").code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["units"],
        ["units", "nowhere"],
        ["plan", "shop", "public.nothing"],
        ["plan", "shop", "public.orders", "--policy", "nothing"],
        ["plan", "shop", "public.orders", "--policy", "=1"],
        ["plan", "shop", "public.orders", "--policy", "a:=b"],
        ["plan", "shop", "public.orders", "--policy", "a=1", "--policy", "a=2"],
        ["plan", "shop", "public.orders", "--policy", "colour=red"],
        ["plan", "shop", "public.orders", "--policy", "targetSliceRows=-5"],
        ["plan", "shop", "public.orders", "--sink", "nowhere"],
        ["runs", "show", "none"],
        ["runs", "pause", "../../health"],
        ["runs", "list", "--state", "BROKEN"],
        ["runs", "list", "--limit", "0"],
        ["endpoints", "add", "shop", "--type", "MEMORY"],
        ["endpoints", "add", "new", "--type", "COBOL"],
        ["state", "show", "shop"],
    ],
    ids=" ".join,
)
def test_a_callers_mistake_is_exit_code_2_and_one_clear_line(
    lab: Lab, matih: Matih, arguments: list[str]
):
    lab.endpoint("shop")
    refused = matih(*arguments)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err.strip()
    assert "Traceback" not in refused.err


def test_wrong_fields_are_named(lab: Lab, matih: Matih):
    lab.endpoint("shop")
    refused = matih("plan", "shop", "public.orders", "--policy", "colour=red", "--policy", "a=1")
    assert "  body.policy.colour: Extra inputs are not permitted\n" in refused.err
    assert "  body.policy.a: Extra inputs are not permitted\n" in refused.err


def test_the_version_is_printed(matih: Matih):
    from matih_ray import __version__

    assert matih("--version").out == f"matih {__version__}\n"
