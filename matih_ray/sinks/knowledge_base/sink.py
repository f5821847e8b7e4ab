"""The knowledge base as a sink endpoint."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pyarrow as pa

from matih_ray.errors import (
    CommitUnknownError,
    ConfigurationError,
    ForbiddenError,
    SchemaMismatchError,
    SinkError,
    SinkUnavailableError,
    StateError,
    ValidationError,
)
from matih_ray.model.cdm import CDM_MODELS, CdmModel
from matih_ray.model.fingerprint import Fingerprint
from matih_ray.model.ids import TenantId
from matih_ray.model.knowledge import KnowledgeStream
from matih_ray.model.plan import IngestionSlice
from matih_ray.model.policy import WriteMode
from matih_ray.model.receipt import CommitMarker, WriteReceipt
from matih_ray.model.value import Value
from matih_ray.settings import Settings
from matih_ray.sinks.base import (
    CommitOutcome,
    PreparedTarget,
    ProvisionedTable,
    SinkTarget,
    SliceWriter,
)
from matih_ray.sinks.fencing import already_applied, runs_after
from matih_ray.sinks.knowledge_base.rules import RULES, part_of
from matih_ray.sources.base import EndpointSpec
from matih_ray.state.factory import process_stores
from matih_ray.state.knowledge import KnowledgeStore

# Rows of one staged part: about 300 KB, and one short transaction.
PART_ROWS = 500
# Tenant and model.
PATH_PARTS = 2


class KnowledgeTarget(Value):
    """The payload of a `PreparedTarget` of this sink."""

    model_id: str
    checksum: bool
    predecessor: CommitMarker | None

    @property
    def generation(self) -> str:
        """Tells stages of writers that saw this predecessor."""
        marker = "" if self.predecessor is None else self.predecessor.to_json()
        return hashlib.sha256(marker.encode()).hexdigest()[:16]


class KnowledgeBaseSink:
    """Writes the meaning of rows to the metadata store. See `SinkEndpoint`."""

    type: ClassVar[str] = "kb"
    supported_cdm_models: ClassVar[tuple[str, ...]] = tuple(RULES)
    write_modes: ClassVar[tuple[WriteMode, ...]] = (WriteMode.APPEND,)
    # the metadata store is there, so that it needs neither an endpoint nor a database of its own
    is_always_ready: ClassVar[bool] = True

    def __init__(self, spec: EndpointSpec) -> None:
        raise ConfigurationError(
            f"sink {spec.name}: there is one knowledge base, the built-in sink kb; use it by name"
        )

    @classmethod
    def from_settings(cls, settings: Settings, tenant_id: TenantId) -> KnowledgeBaseSink:
        """The tenant's knowledge base, in the metadata store."""
        return cls.over(process_stores(settings).metadata, tenant_id)

    @classmethod
    def over(cls, store: KnowledgeStore, tenant_id: TenantId) -> KnowledgeBaseSink:
        """The tenant's knowledge base in a store; the store stays the caller's."""
        sink = cls.__new__(cls)
        sink._store, sink._tenant_id = store, tenant_id  # noqa: SLF001 - a second constructor
        return sink

    _store: KnowledgeStore
    _tenant_id: TenantId

    def provision(self, model: CdmModel) -> ProvisionedTable:
        """Nothing to do: see `SupportsCdm.provision`."""
        del model
        return ProvisionedTable(namespace="metadata", name="kb_nodes")

    def prepare(self, target: SinkTarget) -> PreparedTarget:
        """Check the target; see `SinkEndpoint.prepare`.

        Raises:
            ValidationError: The rows are of no model that has a rule, or the mode is another.
            SchemaMismatchError: They do not have the model's columns.
        """
        self._check_tenant(target.stream.tenant_id)
        model_id = target.path[1] if len(target.path) == PATH_PARTS else ""
        if model_id not in RULES or target.write_mode not in self.write_modes:
            raise ValidationError(
                "the knowledge base takes rows of the canonical data model and adds to what it "
                f"knows: use mode=cdm, writeMode=append and one of {', '.join(RULES)}",
                field="policy.mode",
            )
        if missing := set(CDM_MODELS[model_id].schema.names) - set(target.schema.names):
            raise SchemaMismatchError(
                f"the rows have no column {min(missing)!r} of {model_id}", column=min(missing)
            )
        with _mapped("prepare the knowledge base"):
            known = self._store.knowledge_stream(target.stream)
        payload = KnowledgeTarget(
            model_id=model_id, checksum=target.checksum, predecessor=known.marker
        )
        return PreparedTarget(
            stream=target.stream,
            display_name=f"kb.{model_id}",
            write_mode=target.write_mode,
            payload=payload.to_dict(),
        )

    def writer(self, prepared: PreparedTarget, slice_: IngestionSlice) -> SliceWriter:
        """A writer for one attempt of a slice; nodes that are there are known by their ids."""
        return _Writer(self._store, prepared, self._target(prepared), slice_)

    def commit(
        self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt], marker: CommitMarker
    ) -> CommitOutcome:
        """Show what receipts staged, with the marker; see `SinkEndpoint.commit`."""
        target = self._target(prepared)

        def judge(known: KnowledgeStream) -> KnowledgeStream | None:
            if already_applied(known.marker, target.predecessor, known.runs, marker):
                return None
            return KnowledgeStream(marker=marker, runs=runs_after(known.marker, known.runs, marker))

        in_order = sorted(receipts, key=lambda one: one.sequence)
        stages = [str(one.payload["stage"]) for one in in_order if one.rows]
        try:
            applied = self._store.commit_knowledge(
                prepared.stream, target.generation, stages, judge
            )
        except StateError as error:
            raise CommitUnknownError(f"{error.message}; ask for the marker") from None
        return CommitOutcome.APPLIED if applied else CommitOutcome.ALREADY_APPLIED

    def last_marker(self, prepared: PreparedTarget) -> CommitMarker | None:
        """The stream's marker.

        Raises:
            SinkUnavailableError: The metadata store cannot be asked now.
        """
        self._check_tenant(prepared.stream.tenant_id)
        with _mapped("read the marker of the knowledge base"):
            return self._store.knowledge_stream(prepared.stream).marker

    def abort(self, prepared: PreparedTarget, receipts: Sequence[WriteReceipt]) -> None:
        """Drop what receipts staged that certainly were not committed."""
        self._check_tenant(prepared.stream.tenant_id)
        stages = [str(one.payload["stage"]) for one in receipts]
        with _mapped("abort"):
            self._store.drop_knowledge_stages(self._tenant_id, stages)

    def close(self) -> None:
        """Nothing to do: the store is the process's."""

    def _target(self, prepared: PreparedTarget) -> KnowledgeTarget:
        self._check_tenant(prepared.stream.tenant_id)
        return KnowledgeTarget.from_json(dict(prepared.payload))

    def _check_tenant(self, tenant_id: TenantId) -> None:
        if tenant_id != self._tenant_id:
            raise ForbiddenError(f"this sink belongs to another tenant than {tenant_id}")


class _Writer:
    """Writes one attempt of one slice; see `SliceWriter`."""

    def __init__(
        self,
        store: KnowledgeStore,
        prepared: PreparedTarget,
        target: KnowledgeTarget,
        slice_: IngestionSlice,
    ) -> None:
        self._store = store
        self._stream = prepared.stream
        self._target = target
        self._slice = slice_
        self._stage = uuid.uuid4().hex
        self._parts = self._rows = self._bytes = 0
        self._fingerprint = Fingerprint()

    def write(self, batch: pa.RecordBatch) -> None:
        if self._target.checksum:
            self._fingerprint = self._fingerprint.add(batch)
        for start in range(0, batch.num_rows, PART_ROWS):
            part = part_of(self._target.model_id, batch.slice(start, PART_ROWS))
            with _mapped(f"write slice {self._slice.key} to the knowledge base"):
                self._store.stage_knowledge(
                    self._stream, self._target.generation, self._stage, self._parts, part
                )
            self._parts += 1
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def close(self) -> WriteReceipt:
        return WriteReceipt(
            slice_key=self._slice.key,
            sequence=self._slice.sequence,
            rows=self._rows,
            bytes=self._bytes,
            payload={"stage": self._stage},
            checksum=str(self._fingerprint) if self._target.checksum else None,
        )

    def abort(self) -> None:
        # what stays is dropped by the next run's commit
        with contextlib.suppress(SinkError), _mapped("abort"):
            self._store.drop_knowledge_stages(self._stream.tenant_id, [self._stage])


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except StateError as error:
        raise SinkUnavailableError(f"cannot {what}: {error.message}") from None
