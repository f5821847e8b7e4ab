"""What REST and GraphQL endpoints share: units, schema, plans and reading."""

from __future__ import annotations

import builtins
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    DatabaseNotFoundError,
    NullCursorError,
    PlanError,
    SourceChangedError,
    UnknownUnitError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.model.unit import ColumnDescriptor, EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.base import ConnectionTest, EndpointSpec, IngestionContext
from matih_ray.sources.documents.batches import record_batches
from matih_ray.sources.documents.columns import (
    EXTRA,
    UNSEEN,
    arrow_schema,
    observed_columns,
    selected_columns,
)
from matih_ray.sources.http.auth import SECRET_FIELDS
from matih_ray.sources.http.client import Answer, ApiClient, Server
from matih_ray.sources.http.config import Cursor, Stream
from matih_ray.sources.http.json_values import dialect_of, with_decimals
from matih_ray.sources.http.pagination import Record, StreamPages
from matih_ray.sources.http.planning import plan_full, plan_incremental
from matih_ray.sources.http.positions import bound_params, position_of
from matih_ray.sources.http.slices import CursorSlice, PagesSlice, WholeSlice, parse

# Enough for the common fields of a stream, and few requests to an API that counts them.
SAMPLE_RECORDS = 1000
SAMPLE_PAGES = 10


class HttpSource(ABC):
    """An API whose streams the connector declares. Subclasses say how they ask for them."""

    type: ClassVar[str]
    vendor: ClassVar[str]
    config_model: ClassVar[builtins.type[Value]]
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec, server: Server, streams: tuple[Stream, ...]) -> None:
        """Check credentials; nothing is connected yet."""
        self._endpoint_id = spec.endpoint_id
        self._streams: Mapping[str, Stream] = {stream.name: stream for stream in streams}
        self._limits = server.limits
        self._client = ApiClient(server, spec.secrets)

    @abstractmethod
    def _asked_by_test(self) -> Answer:
        """The answer to the smallest request that needs the credentials, asked once."""

    @abstractmethod
    def _pages(self, stream: Stream) -> StreamPages:
        """How a stream's pages are asked for."""

    def test(self) -> ConnectionTest:
        """Ask once, over a new connection."""
        self._client.close()
        started = time.monotonic()
        answer = self._asked_by_test()
        elapsed_ms = (time.monotonic() - started) * 1000
        server = answer.headers.get("Server", "").strip()[:100]
        version = f"{answer.http_version} {server}".strip()
        return ConnectionTest(latency_ms=elapsed_ms, server_version=version)

    def list_units(self, context: IngestionContext) -> list[EndpointUnitDescriptor]:
        """The declared streams, ordered by name; `context.pattern` is a glob on it.

        Columns of a stream without a schema come from a bounded sample.

        Raises:
            ValidationError: The page's offset or limit is negative.
        """
        if context.offset < 0 or context.limit < 0:
            raise ValidationError("offset and limit must not be negative", field="offset, limit")
        names = sorted(self._streams)
        if context.pattern is not None:
            names = [name for name in names if fnmatchcase(name, context.pattern)]
        page = names[context.offset : context.offset + context.limit]
        return [self._described(self._streams[name]) for name in page]

    def describe_unit(self, unit_id: UnitId) -> EndpointUnitDescriptor:
        """One stream with its columns."""
        return self._described(self._stream(unit_id))

    def read_schema(self, unit: EndpointUnitDescriptor, policy: IngestionPolicy) -> pa.Schema:
        """The schema of every batch, from the unit's native types alone.

        Raises:
            ValidationError: The policy's columns or encodings do not fit the unit.
        """
        return arrow_schema(selected_columns(dialect_of(unit), unit, policy))

    def plan_incremental_slices(
        self,
        unit: EndpointUnitDescriptor,
        checkpoint: Checkpoint | None,
        policy: IngestionPolicy,
        target_slice_size: int,
    ) -> IngestionPlan:
        """Slices of about `target_slice_size` records where the API can be cut; see `planning`.

        Raises:
            ValidationError: The policy does not fit the unit, or the size is not positive.
            PlanError: The stream has no such cursor.
        """
        _check(unit, policy, target_slice_size)
        stream = self._present(unit)
        pages = self._pages(stream)
        if policy.run_mode is RunMode.INCREMENTAL or policy.cursor_column is not None:
            cursor = _cursor_of(stream, policy)
            # the field must be among the columns, whether the policy names it or the connector
            by_cursor = policy.model_copy(update={"cursor_column": cursor.field})
            selected_columns(dialect_of(unit), unit, by_cursor)
            return plan_incremental(pages, unit, cursor, checkpoint, policy, target_slice_size)
        return plan_full(pages, unit, target_slice_size)

    def read(
        self, unit: EndpointUnitDescriptor, slice_: IngestionSlice, policy: IngestionPolicy
    ) -> Iterator[pa.RecordBatch]:
        """Batches of one slice."""
        params = parse(slice_)
        dialect = dialect_of(unit)
        columns = selected_columns(dialect, unit, policy)
        stream = self._present(unit)
        try:
            pages = self._read_pages(stream, params)
            if stream.unknown_fields == "refuse":
                pages = (_only_known(unit, page) for page in pages)
            yield from record_batches(dialect, columns, unit.unit_id, pages)
        except DatabaseNotFoundError as error:
            raise SourceChangedError(error.message, unit_id=unit.unit_id) from None

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._client.close()

    def _read_pages(
        self, stream: Stream, params: WholeSlice | PagesSlice | CursorSlice
    ) -> Iterator[list[Record]]:
        pages = self._pages(stream)
        if isinstance(params, CursorSlice):
            cursor = stream.cursor
            if cursor is None:
                raise SourceChangedError(f"{stream.name} has no cursor any more; plan again")
            asked = bound_params(cursor, params.lower, params.upper)
            return (_within(stream.name, cursor, params, page) for page in pages.pages(asked))
        if isinstance(params, PagesSlice):
            return pages.pages({}, params.start, params.stop)
        return pages.pages({})

    def _described(self, stream: Stream) -> EndpointUnitDescriptor:
        declared = _declared(stream)
        dialect = with_decimals(set(declared.values()))
        sample = [] if stream.fields is not None else self._sample(stream)
        columns: tuple[ColumnDescriptor, ...] = observed_columns(dialect, sample, declared)
        if stream.unknown_fields == "refuse":
            columns = tuple(column for column in columns if column.name != EXTRA)
        return EndpointUnitDescriptor(
            endpoint_id=self._endpoint_id,
            unit_id=UnitId(stream.name),
            namespace=self.type.lower(),
            name=stream.name,
            kind="stream",
            columns=columns,
            primary_key=stream.primary_key,
            cursor_candidates=(stream.cursor.field,) if stream.cursor else (),
        )

    def _sample(self, stream: Stream) -> list[Record]:
        pages = islice(self._pages(stream).pages({}), SAMPLE_PAGES)
        return list(islice((record for page in pages for record in page), SAMPLE_RECORDS))

    def _stream(self, unit_id: str) -> Stream:
        stream = self._streams.get(unit_id)
        if stream is None:
            raise UnknownUnitError(
                f"the connector declares no stream {unit_id}", unit_id=str(unit_id)
            )
        return stream

    def _present(self, unit: EndpointUnitDescriptor) -> Stream:
        """The stream of a unit that was declared when the unit was described."""
        try:
            return self._stream(unit.unit_id)
        except UnknownUnitError:
            raise SourceChangedError(
                f"{unit.unit_id} is gone since it was described", unit_id=unit.unit_id
            ) from None


def _check(unit: EndpointUnitDescriptor, policy: IngestionPolicy, target_rows: int) -> None:
    if target_rows <= 0:
        raise ValidationError(
            f"the target slice size is a number of rows above 0, not {target_rows}",
            field="targetSliceRows",
        )
    if policy.filter is not None:
        raise ValidationError(
            "this source has no filters; put parameters into the stream", field="filter"
        )
    if policy.run_mode is RunMode.CDC or policy.exact_count:
        what = "cdc mode" if policy.run_mode is RunMode.CDC else "exact count"
        raise PlanError(f"{unit.unit_id}: this source has no {what}", unit_id=unit.unit_id)
    selected_columns(dialect_of(unit), unit, policy)


def _declared(stream: Stream) -> dict[str, str]:
    """Types by field, as far as the connector tells. A stream without records has its key too."""
    if stream.fields is not None:
        return {field.name: field.type for field in stream.fields}
    cursor = () if stream.cursor is None else (stream.cursor.field,)
    return dict.fromkeys((*stream.primary_key, *cursor), UNSEEN)


def _cursor_of(stream: Stream, policy: IngestionPolicy) -> Cursor:
    cursor = stream.cursor
    if cursor is None or policy.cursor_column not in (None, cursor.field):
        has = "none" if cursor is None else cursor.field
        raise PlanError(
            f"{stream.name} has no cursor {policy.cursor_column or ''}; the connector declares "
            f"{has}",
            unit_id=stream.name,
            column=policy.cursor_column,
        )
    return cursor


def _within(name: str, cursor: Cursor, params: CursorSlice, page: list[Record]) -> list[Record]:
    """The records of a page that belong to a slice."""
    kept = []
    for record in page:
        position = position_of(cursor, record.get(cursor.field))
        if position is None:
            if params.nulls == "refuse":
                raise NullCursorError(
                    f"{name} holds a record without {cursor.field}; leave such records out with "
                    "nullCursor=ignore, or make a full run",
                    column=cursor.field,
                )
            inside = params.nulls == "load"
        else:
            above = params.lower is None or params.lower < position
            inside = above and position <= params.upper
        if inside:
            kept.append(record)
    return kept


def _only_known(unit: EndpointUnitDescriptor, page: list[Record]) -> list[Record]:
    names = {column.name for column in unit.columns}
    for record in page:
        if not record.keys() <= names:
            unknown = min(record.keys() - names)
            raise SourceChangedError(
                f"{unit.unit_id} has a new field {unknown[:100]!r}; declare it, or set "
                "unknownFields to 'extra'",
                unit_id=unit.unit_id,
                column=unknown[:100],
            )
    return page
