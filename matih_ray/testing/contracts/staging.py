"""The staging contract: subclass `StagingContract` and provide a `provider` fixture."""

from __future__ import annotations

import pyarrow as pa
import pytest

from matih_ray.errors import StagingLostError
from matih_ray.staging.base import StagingProvider

# Over 100 KB: smaller objects are inlined by Ray and would hide lost references.
ROWS = 30_000


def batch(start: int = 0, rows: int = ROWS) -> pa.RecordBatch:
    """A batch of integers, strings and NULLs, over 100 KB at the default size."""
    numbers = range(start, start + rows)
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array(numbers, pa.int64()),
            "text": pa.array([None if n % 7 == 0 else f"row {n}" for n in numbers], pa.string()),
        }
    )


class StagingContract:
    """What every staging provider must keep."""

    def test_batches_come_back_in_order(self, provider: StagingProvider) -> None:
        session = provider.allocate("s-0")
        writer = session.writer()
        for start in (0, ROWS, 2 * ROWS):
            writer.write_batch(batch(start))
        handle = session.handle
        read = list(provider.open(handle).reader().iter_batches())
        assert pa.Table.from_batches(read).equals(
            pa.Table.from_batches([batch(0), batch(ROWS), batch(2 * ROWS)])
        )
        assert handle.rows == 3 * ROWS
        assert handle.bytes >= 3 * 100_000
        session.close()

    def test_an_empty_session_reads_as_nothing(self, provider: StagingProvider) -> None:
        session = provider.allocate("s-0")
        assert session.handle.rows == 0
        assert list(provider.open(session.handle).reader().iter_batches()) == []
        session.close()

    def test_sessions_of_one_slice_do_not_mix(self, provider: StagingProvider) -> None:
        first, second = provider.allocate("s-0"), provider.allocate("s-0")
        first.writer().write_batch(batch(0))
        second.writer().write_batch(batch(ROWS))
        assert next(iter(first.reader().iter_batches())).equals(batch(0))
        assert next(iter(second.reader().iter_batches())).equals(batch(ROWS))
        first.close()
        second.close()

    def test_closing_twice_is_harmless(self, provider: StagingProvider) -> None:
        session = provider.allocate("s-0")
        session.writer().write_batch(batch())
        session.close()
        session.close()

    def test_reading_what_is_gone_is_a_typed_error(self, provider: StagingProvider) -> None:
        session = provider.allocate("s-0")
        session.writer().write_batch(batch())
        handle = session.handle
        reader = session.reader()
        session.close()
        with pytest.raises(StagingLostError):
            list(reader.iter_batches())
        assert handle.rows == ROWS
