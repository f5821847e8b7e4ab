"""Queries of the knowledge base, and their types."""

from __future__ import annotations

from typing import Annotated

import strawberry

from matih_ray.api.graphql.types import Context
from matih_ray.control import knowledge
from matih_ray.control.pages import MAX_PAGE_ITEMS
from matih_ray.model.knowledge import (
    KnowledgeEdge,
    KnowledgeNode,
    KnowledgePath,
    Neighbour,
    NodeKind,
)

Id = strawberry.ID
Limit = Annotated[int, strawberry.argument(description=f"1 to {MAX_PAGE_ITEMS}")]
Depth = Annotated[int, strawberry.argument(description=f"1 to {knowledge.MAX_DEPTH}")]

KbNodeKind = strawberry.enum(NodeKind, name="KbNodeKind")


@strawberry.type(description="One thing of the knowledge base, in a few words.")
class KbNode:
    id: strawberry.ID
    kind: NodeKind
    title: str
    key: str | None
    summary: str | None
    url: str | None
    endpoint_id: strawberry.ID | None

    @classmethod
    def of(cls, node: KnowledgeNode) -> KbNode:
        return cls(
            id=Id(node.node_id),
            kind=node.kind,
            title=node.title,
            key=node.key,
            summary=node.summary,
            url=node.url,
            endpoint_id=None if node.endpoint_id is None else Id(node.endpoint_id),
        )


@strawberry.type(description="A page of nodes; `hasMore` says whether another one follows.")
class KbNodePage:
    items: list[KbNode]
    has_more: bool


@strawberry.type(description="An edge of a node; `node` is null where its other end is not known.")
class KbNeighbour:
    kind: str
    outgoing: bool
    node_id: strawberry.ID
    node: KbNode | None

    @classmethod
    def of(cls, found: Neighbour) -> KbNeighbour:
        return cls(
            kind=found.kind,
            outgoing=found.outgoing,
            node_id=Id(found.node_id),
            node=None if found.node is None else KbNode.of(found.node),
        )


@strawberry.type(description="A page of edges; `hasMore` says whether another one follows.")
class KbNeighbourPage:
    items: list[KbNeighbour]
    has_more: bool


@strawberry.type(description="How one node is related to another.")
class KbEdge:
    from_id: strawberry.ID
    kind: str
    to_id: strawberry.ID

    @classmethod
    def of(cls, edge: KnowledgeEdge) -> KbEdge:
        return cls(from_id=Id(edge.from_id), kind=edge.kind, to_id=Id(edge.to_id))


@strawberry.type(
    description="The shortest way between two nodes, empty if there is none; `complete` is false "
    "if the search was given up, so that there may be one."
)
class KbPath:
    nodes: list[KbNode]
    edges: list[KbEdge]
    complete: bool

    @classmethod
    def of(cls, path: KnowledgePath) -> KbPath:
        return cls(
            nodes=[KbNode.of(node) for node in path.nodes],
            edges=[KbEdge.of(edge) for edge in path.edges],
            complete=path.complete,
        )


@strawberry.type
class KnowledgeQuery:
    @strawberry.field(description="One node of the knowledge base.")
    def kb_node(self, info: Context, id: Id) -> KbNode:  # noqa: A002 the schema's usual name
        of = info.context
        return KbNode.of(knowledge.node(of.principal, of.ports, of.tenant_id, id))

    @strawberry.field(
        description="Nodes whose key, title or summary hold every word, ordered by id."
    )
    def kb_search(
        self,
        info: Context,
        text: str,
        kinds: list[NodeKind] | None = None,
        offset: int = 0,
        limit: Limit = 100,
    ) -> KbNodePage:
        of = info.context
        page = knowledge.search(
            of.principal,
            of.ports,
            of.tenant_id,
            text,
            kinds=kinds or (),
            offset=offset,
            limit=limit,
        )
        return KbNodePage(items=[KbNode.of(one) for one in page.items], has_more=page.has_more)

    @strawberry.field(description="The edges of a node, in both directions.")
    def kb_neighbours(
        self,
        info: Context,
        id: Id,  # noqa: A002 the schema's usual name
        offset: int = 0,
        limit: Limit = 100,
    ) -> KbNeighbourPage:
        of = info.context
        page = knowledge.neighbours(
            of.principal, of.ports, of.tenant_id, id, offset=offset, limit=limit
        )
        items = [KbNeighbour.of(one) for one in page.items]
        return KbNeighbourPage(items=items, has_more=page.has_more)

    @strawberry.field(description="The shortest way between two nodes.")
    def kb_path(
        self, info: Context, from_id: Id, to_id: Id, max_depth: Depth = knowledge.DEFAULT_DEPTH
    ) -> KbPath:
        of = info.context
        found = knowledge.path(
            of.principal, of.ports, of.tenant_id, from_id, to_id, max_depth=max_depth
        )
        return KbPath.of(found)
