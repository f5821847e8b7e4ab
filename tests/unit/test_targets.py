"""The rule of a merging run: what tells rows apart, and which version is newer."""

from __future__ import annotations

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from matih_ray.errors import PlanError
from matih_ray.execution.targets import merge_rule
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, RunId, SinkId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, MergeRule, WriteMode
from matih_ray.model.run import RunRecord, RunState
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor, Fidelity

UNIT = EndpointUnitDescriptor(
    endpoint_id=EndpointId("e"),
    unit_id=UnitId("items"),
    namespace="",
    name="items",
    primary_key=("id",),
    columns=(
        ColumnDescriptor(name="id", native_type="bigint", arrow_type="int64"),
        ColumnDescriptor(name="stamp", native_type="text", arrow_type="string"),
        ColumnDescriptor(
            name="version",
            native_type="N",
            arrow_type="string",
            fidelity=Fidelity.ENCODED,
            encoding="text",
        ),
    ),
)


def rule(version: pa.DataType, **policy: object) -> MergeRule | None:
    schema = pa.schema([("id", pa.int64()), ("stamp", pa.string()), ("version", version)])
    record = RunRecord(
        run_id=RunId("r"),
        stream=StreamKey(
            tenant_id=TenantId("t"),
            vendor="v",
            endpoint_id=EndpointId("e"),
            unit_id=UnitId("items"),
            sink_id=SinkId("iceberg"),
        ),
        state=RunState.QUEUED,
        policy=IngestionPolicy.from_json({"writeMode": "merge", **policy}),
        staging_provider_id="memory",
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    return merge_rule(record, UNIT, schema)


def test_by_default_rows_are_told_apart_by_the_key_and_versions_by_the_cursor():
    assert rule(pa.decimal128(18, 0), cursorColumn="version") == MergeRule(
        key=("id",), order="version"
    )


def test_a_key_is_no_order_since_all_versions_of_a_row_have_the_same():
    assert rule(pa.int64(), cursorColumn="id") == MergeRule(key=("id",), order=None)


def test_numbers_that_arrive_as_text_are_no_order():
    with pytest.raises(PlanError, match=r"decimal\(38,0\)") as caught:
        rule(pa.string(), cursorColumn="version")
    assert caught.value.context["column"] == "version"
    assert rule(pa.string(), cursorColumn="version", orderColumn="stamp") == MergeRule(
        key=("id",), order="stamp"
    )


def test_other_modes_have_no_rule():
    assert rule(pa.int64(), writeMode=WriteMode.APPEND.value) is None


def test_a_source_that_tells_what_is_gone_needs_no_delete_column():
    schema = pa.schema([("id", pa.int64()), ("seen", pa.string()), ("gone", pa.bool_())])
    plan = IngestionPlan(
        endpoint_id=EndpointId("e"),
        unit_id=UnitId("items"),
        slices=(),
        strategy="log",
        cursor_column="seen",
        delete_column="gone",
    )
    record = RunRecord(
        run_id=RunId("r"),
        stream=StreamKey(
            tenant_id=TenantId("t"),
            vendor="v",
            endpoint_id=EndpointId("e"),
            unit_id=UnitId("items"),
            sink_id=SinkId("iceberg"),
        ),
        state=RunState.QUEUED,
        policy=IngestionPolicy.from_json({"writeMode": "merge", "runMode": "cdc"}),
        plan=plan,
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    assert merge_rule(record, UNIT, schema) == MergeRule(key=("id",), order="seen", delete="gone")
