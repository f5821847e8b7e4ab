"""The CDM sink keeps the sink contract, replies lost on the network included."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from matih_ray.errors import SchemaMismatchError
from matih_ray.testing.contracts.sink import LostReplyContract, SinkContract
from matih_ray.testing.contracts.sink_lab import SCHEMA, assert_rows, target
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.postgres_gate import PostgresGate
from tests.integration.cdm_lab import CdmLab


class GatedLab(CdmLab):
    """Loses replies between the sink and its database."""

    gate: PostgresGate

    def lose_reply(self, *, applied: bool) -> None:
        self.gate.lose_reply(applied=applied, after=b"SET marker = ")


@pytest.fixture(scope="module")
def gated_lab(postgres: PostgresServer) -> Iterator[GatedLab]:
    with PostgresGate(postgres.host, postgres.port) as gate:
        GatedLab.gate = gate
        yield GatedLab.create(postgres, "cdm_contract", gate.port)


class TestCdmPostgresSink(SinkContract, LostReplyContract):
    @pytest.fixture
    def lab(self, gated_lab: GatedLab) -> GatedLab:
        return gated_lab

    # a table only ever gets more columns, and an older writer may know fewer of them
    @pytest.mark.parametrize(
        ("schema", "column"),
        [
            (SCHEMA.set(0, pa.field("id", pa.string())), "id"),
            (SCHEMA.set(2, pa.field("price", pa.decimal128(18, 2))), "price"),
            (SCHEMA.set(4, pa.field("at", pa.timestamp("us"))), "at"),
        ],
        ids=["type", "scale", "zone"],
    )
    def test_rows_that_do_not_fit_the_table_are_refused(
        self, lab: GatedLab, schema: pa.Schema, column: str
    ) -> None:
        first = target()
        prepared = lab.sink().prepare(first)
        with pytest.raises(SchemaMismatchError, match=column):
            lab.sink().prepare(target(first.path, schema=schema))
        assert_rows(lab, prepared)

    # the sum is over rows with their envelope: see test_cdm_postgres_values
    test_a_checksum_is_the_fingerprint_of_what_was_written = None
    # rows are known by their key, whatever a slice asks to be compared
    test_rows_that_the_table_has_are_dropped_when_asked = None
    test_changed_rows_and_repeated_rows_are_kept = None
