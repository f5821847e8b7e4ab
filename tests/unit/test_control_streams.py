"""Which runs may start or go on, so that no row is loaded twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from matih_ray.control.building import endpoint_spec
from matih_ray.control.ports import Ports
from matih_ray.control.streams import check_may_resume, check_may_start, stored_checkpoint
from matih_ray.errors import CommitUnknownError, ConflictError, NotFoundError, StateVersionError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, WriteMode
from matih_ray.model.run import RunError, RunRecord, RunState
from matih_ray.settings import Settings
from matih_ray.state.base import EndpointRecord
from matih_ray.state.factory import open_stores
from matih_ray.testing.fakes import RecordingLauncher, memory_registry

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
STREAM = StreamKey(
    tenant_id=TenantId("acme"),
    vendor="test.memory",
    endpoint_id=EndpointId("e"),
    unit_id=UnitId("u"),
    sink_id=SinkId("iceberg"),
)
PLAN = IngestionPlan(endpoint_id=EndpointId("e"), unit_id=UnitId("u"), slices=(), strategy="none")
APPEND = IngestionPolicy(write_mode=WriteMode.APPEND)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def run(name: str, **changes) -> RunRecord:
    base = {
        "run_id": RunId(name),
        "stream": STREAM,
        "state": RunState.FAILED,
        "policy": IngestionPolicy(),
        "plan": PLAN,
        "created_at": at(0),
        "started_at": at(1),
    }
    return RunRecord.model_validate({**base, **changes})


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([], id="alone"),
        pytest.param([run("me", through=3, finished_at=at(9))], id="itself"),
        pytest.param([run("b", through=0, finished_at=at(9))], id="committed-nothing"),
        pytest.param([run("b", through=3, finished_at=at(0.5))], id="before-it-began"),
        pytest.param([run("b", through=3, heartbeat_at=at(0.5))], id="paused-before-it-began"),
    ],
)
def test_a_run_goes_on_while_its_stream_stands_where_it_left_it(others: list[RunRecord]):
    check_may_resume(run("me", through=2), others)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(run("b", through=3, finished_at=at(9)), id="finished-since"),
        pytest.param(run("b", through=1, heartbeat_at=at(9)), id="alive-since"),
        pytest.param(run("b", through=1, created_at=at(5), started_at=None), id="created-since"),
    ],
)
@pytest.mark.parametrize("through", [0, 2])
def test_a_run_does_not_go_on_once_another_has_committed(other: RunRecord, through: int):
    with pytest.raises(ConflictError) as refused:
        check_may_resume(run("me", through=through), [other])
    assert refused.value.context["run_id"] == "b"


def test_a_run_without_a_plan_plans_anew_and_may_always_go_on():
    check_may_resume(run("me", plan=None), [run("b", through=3, finished_at=at(9))])


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[Ports]:
    settings = Settings(home=tmp_path)
    stores = open_stores(settings)
    launcher = RecordingLauncher()
    registry = memory_registry()
    yield Ports(settings, registry, stores.metadata, stores.kv, stores.credentials, launcher)
    stores.close()


def stopped(ports: Ports, name: str, **changes) -> None:
    """A run in the ledger that was started and has stopped."""
    queued = run(name, state=RunState.QUEUED, policy=changes.pop("policy", APPEND))
    created = ports.metadata.create_run(queued)
    ports.metadata.update_run(created.model_copy(update={"state": RunState.FAILED, **changes}))


def commit_unknown() -> RunError:
    return RunError.of(CommitUnknownError("may have been applied"))


def test_a_commit_of_unknown_outcome_keeps_a_full_append_from_starting(ports: Ports):
    stopped(ports, "a", error=commit_unknown())
    with pytest.raises(ConflictError) as refused:
        check_may_start(ports, STREAM, APPEND)
    assert refused.value.context["run_id"] == "a"


def test_other_policies_are_not_kept_from_starting(ports: Ports):
    stopped(ports, "a", error=commit_unknown())
    check_may_start(ports, STREAM, IngestionPolicy())


def test_what_did_not_append_keeps_nobody_from_starting(ports: Ports):
    stopped(ports, "a", error=commit_unknown(), policy=IngestionPolicy())
    check_may_start(ports, STREAM, APPEND)


def test_a_checkpoint_that_names_a_forgotten_run_keeps_nobody_from_starting(ports: Ports):
    value = {"version": 1, "runId": "gone", "through": 3}
    ports.kv.compare_and_set(STREAM.tenant_id, STREAM.kv_key(), value, 0)
    check_may_start(ports, STREAM, APPEND)


def test_a_checkpoint_that_is_none_is_said_to_be_that(ports: Ports):
    assert stored_checkpoint(ports, STREAM) is None
    ports.kv.compare_and_set(STREAM.tenant_id, STREAM.kv_key(), "nonsense", 0)
    with pytest.raises(StateVersionError):
        stored_checkpoint(ports, STREAM)


class SwappingCredentials:
    """Credentials that are replaced between somebody's two reads."""

    def __init__(self, ports: Ports, record: EndpointRecord) -> None:
        self.ports = ports
        self.record = record

    def get(self, tenant_id: TenantId, name: str) -> dict[str, str]:
        if name == "old":
            after = self.record.model_copy(update={"credential_name": "new"})
            self.ports.credentials.put(tenant_id, "new", {"password": "p2"})
            self.ports.metadata.put_endpoint(after)
            self.ports.credentials.delete(tenant_id, "old")
        return self.ports.credentials.get(tenant_id, name)


def endpoint(ports: Ports, credential_name: str) -> EndpointRecord:
    return ports.metadata.put_endpoint(
        EndpointRecord(
            endpoint_id=EndpointId("e"),
            tenant_id=STREAM.tenant_id,
            name="shop",
            type="MEMORY",
            config={},
            credential_name=credential_name,
            created_at=NOON,
            updated_at=NOON,
        )
    )


def test_credentials_that_are_replaced_while_they_are_read_are_read_again(ports: Ports):
    from dataclasses import replace

    ports.credentials.put(STREAM.tenant_id, "old", {"password": "p1"})
    record = endpoint(ports, "old")
    raced = replace(ports, credentials=SwappingCredentials(ports, record))
    spec = endpoint_spec(raced, STREAM.tenant_id, EndpointId("e"))
    assert spec.secrets == {"password": "p2"}


def test_credentials_that_are_gone_are_said_to_be_gone(ports: Ports):
    endpoint(ports, "never-stored")
    with pytest.raises(NotFoundError):
        endpoint_spec(ports, STREAM.tenant_id, EndpointId("e"))
