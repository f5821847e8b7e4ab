"""The port of the knowledge base. Everything is under a tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import TenantId
from matih_ray.model.knowledge import (
    KnowledgeEdge,
    KnowledgeNode,
    KnowledgePart,
    KnowledgeSearch,
    KnowledgeStream,
)

# Judges a stream as it is now: what it is afterwards, None if there is nothing to do.
Judge = Callable[[KnowledgeStream], "KnowledgeStream | None"]


class KnowledgeStore(Protocol):
    """Nodes and edges, and parts that a commit has not made visible yet."""

    def stage_knowledge(
        self, stream: StreamKey, generation: str, stage: str, number: int, part: KnowledgePart
    ) -> None:
        """Keep a part of a stage, unseen; again with the same number it is replaced."""

    def drop_knowledge_stages(self, tenant_id: TenantId, stages: Sequence[str]) -> None:
        """Forget stages; harmless to repeat."""

    def commit_knowledge(
        self, stream: StreamKey, generation: str, stages: Sequence[str], judge: Judge
    ) -> bool:
        """Let the stages be seen, and the stream be what `judge` makes of it, in one transaction
        that holds the stream; false if it says that there is nothing to do.

        Stages of the stream of other generations are forgotten when its run changes.

        Raises:
            NotFoundError: The endpoint is gone.
            MatihError: What `judge` raises; nothing is changed then.
        """

    def knowledge_stream(self, stream: StreamKey) -> KnowledgeStream:
        """What is known of the stream, once every commit under way has ended."""

    def put_knowledge(self, tenant_id: TenantId, part: KnowledgePart) -> None:
        """Let a part be seen at once. Idempotent."""

    def get_nodes(self, tenant_id: TenantId, node_ids: Sequence[str]) -> dict[str, KnowledgeNode]:
        """Those of the nodes (at most a page of them) that are there."""

    def find_nodes(
        self, search: KnowledgeSearch, *, offset: int = 0, limit: int = 100
    ) -> list[KnowledgeNode]:
        """A page of what is found, ordered by id."""

    def edges_of(
        self, tenant_id: TenantId, node_ids: Sequence[str], *, offset: int = 0, limit: int = 100
    ) -> list[KnowledgeEdge]:
        """A page of the edges that begin or end at one of the nodes (at most a page of them)."""
