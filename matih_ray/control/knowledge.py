"""Questions to the knowledge base: search by words, neighbours, the shortest path."""

from __future__ import annotations

from collections.abc import Sequence

from matih_ray.control.authorization import Action, Principal, authorize
from matih_ray.control.pages import Page, page_of
from matih_ray.control.ports import Ports
from matih_ray.errors import NotFoundError, ValidationError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.knowledge import (
    MAX_SUMMARY_CHARS,
    MAX_TITLE_CHARS,
    KnowledgeEdge,
    KnowledgeNode,
    KnowledgePart,
    KnowledgePath,
    KnowledgeSearch,
    Neighbour,
    NodeKind,
    cut,
    dataset_id,
    stored_id,
)

# What a person types; each word is a scan of what the others have left.
MAX_SEARCH_CHARS = 200
MAX_WORDS = 8
DEFAULT_DEPTH, MAX_DEPTH = 4, 6
# What one search for a path may look at: a second or two, and some megabytes.
MAX_EDGES_SEEN = 20_000
# Edges and nodes of one statement.
STEP_EDGES = 1000
STEP_NODES = 500


def search(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    text: str,
    *,
    kinds: Sequence[NodeKind] = (),
    offset: int = 0,
    limit: int = 100,
) -> Page[KnowledgeNode]:
    """Nodes whose key, title or summary hold every word of the text, ordered by id.

    Raises:
        ValidationError: No words, or too many; or no such page.
    """
    authorize(principal, Action.READ, tenant_id)
    words = tuple(text.split()) if len(text) <= MAX_SEARCH_CHARS else ()
    if not 1 <= len(words) <= MAX_WORDS:
        raise ValidationError(
            f"search for 1 to {MAX_WORDS} words of together at most {MAX_SEARCH_CHARS} characters",
            field="search",
        )
    wanted = KnowledgeSearch(tenant_id=tenant_id, words=words, kinds=tuple(kinds))
    return page_of(
        lambda start, rows: ports.metadata.find_nodes(wanted, offset=start, limit=rows),
        offset,
        limit,
    )


def node(principal: Principal, ports: Ports, tenant_id: TenantId, node_id: str) -> KnowledgeNode:
    """One node.

    Raises:
        NotFoundError: It is not known, or gone.
    """
    authorize(principal, Action.READ, tenant_id)
    found = ports.metadata.get_nodes(tenant_id, [node_id]).get(node_id)
    if found is None:
        raise NotFoundError(f"the knowledge base has no node {node_id[:200]!r}")
    return found


def neighbours(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    node_id: str,
    *,
    offset: int = 0,
    limit: int = 100,
) -> Page[Neighbour]:
    """The edges of a node, in both directions, with the nodes at their other ends.

    Edges of nodes that are gone are not among them; a node that others only refer to may have some.
    """
    authorize(principal, Action.READ, tenant_id)
    page = page_of(
        lambda start, rows: ports.metadata.edges_of(tenant_id, [node_id], offset=start, limit=rows),
        offset,
        limit,
    )
    ends = {_other_end(edge, node_id) for edge in page.items}
    known = ports.metadata.get_nodes(tenant_id, sorted(ends))
    items = [
        Neighbour(
            kind=edge.kind,
            outgoing=edge.from_id == node_id,
            node_id=_other_end(edge, node_id),
            node=known.get(_other_end(edge, node_id)),
        )
        for edge in page.items
    ]
    return Page(items, page.offset, page.limit, page.has_more)


def path(
    principal: Principal,
    ports: Ports,
    tenant_id: TenantId,
    from_id: str,
    to_id: str,
    *,
    max_depth: int = DEFAULT_DEPTH,
) -> KnowledgePath:
    """The shortest way between two nodes, along edges in either direction.

    Raises:
        ValidationError: The depth is not one that is searched.
    """
    authorize(principal, Action.READ, tenant_id)
    if not 1 <= max_depth <= MAX_DEPTH:
        raise ValidationError(f"maxDepth must be 1 to {MAX_DEPTH}", field="maxDepth")
    reached: dict[str, KnowledgeEdge | None] = {from_id: None}
    frontier, seen = [from_id], 0
    for _ in range(max_depth):
        if to_id in reached or not frontier:
            break
        following: list[str] = []
        for edge in _edges(ports, tenant_id, frontier, MAX_EDGES_SEEN + 1 - seen):
            seen += 1
            for end, start in ((edge.to_id, edge.from_id), (edge.from_id, edge.to_id)):
                if end not in reached and start in reached:
                    reached[end] = edge
                    following.append(end)
        if seen > MAX_EDGES_SEEN and to_id not in reached:
            return KnowledgePath(complete=False)
        frontier = following
    if to_id not in reached:
        return KnowledgePath()
    return _way_back(ports, tenant_id, reached, to_id)


def note_lineage(ports: Ports, stream: StreamKey) -> None:
    """Note that the stream's dataset is loaded into its sink. For what runs it; idempotent.

    Raises:
        NotFoundError: Endpoint or unit are gone.
    """
    tenant_id = stream.tenant_id
    endpoint = ports.metadata.get_endpoint(tenant_id, stream.endpoint_id)
    unit = ports.metadata.get_unit(tenant_id, stream.endpoint_id, stream.unit_id)
    connector = KnowledgeNode(
        node_id=stored_id(f"connector:{stream.endpoint_id}"),
        kind=NodeKind.CONNECTOR,
        endpoint_id=stream.endpoint_id,
        title=cut(endpoint.name, MAX_TITLE_CHARS),
        summary=endpoint.type,
    )
    dataset = KnowledgeNode(
        node_id=dataset_id(stream.endpoint_id, stream.unit_id),
        kind=NodeKind.DATASET,
        endpoint_id=stream.endpoint_id,
        title=cut(unit.name, MAX_TITLE_CHARS),
        key=cut(stream.unit_id, MAX_TITLE_CHARS),
        summary=cut(unit.namespace, MAX_SUMMARY_CHARS),
    )
    sink = _sink_node(ports, stream)
    # one row for each stream owns its edge: a dataset may be loaded into many sinks
    load = KnowledgeNode(
        node_id=stored_id(f"load:{stream.endpoint_id}:{stream.unit_id}:{stream.sink_id}"),
        kind=NodeKind.RELATION,
        endpoint_id=stream.endpoint_id,
    )
    edges = (
        _edge(dataset, dataset, "part_of", connector),
        _edge(load, dataset, "loaded_into", sink),
    )
    part = KnowledgePart(nodes=(connector, dataset, sink, load), edges=edges)
    ports.metadata.put_knowledge(tenant_id, part)


def _sink_node(ports: Ports, stream: StreamKey) -> KnowledgeNode:
    id_, name = stored_id(f"sink:{stream.sink_id}"), str(stream.sink_id)
    if stream.sink_id in ports.registry.names("sinks"):
        return KnowledgeNode(node_id=id_, kind=NodeKind.SINK, title=name, summary=name)
    record = ports.metadata.get_endpoint(stream.tenant_id, EndpointId(stream.sink_id))
    return KnowledgeNode(
        node_id=id_,
        kind=NodeKind.SINK,
        endpoint_id=record.endpoint_id,
        title=cut(record.name, MAX_TITLE_CHARS),
        summary=record.type,
    )


def _edge(
    owner: KnowledgeNode, start: KnowledgeNode, kind: str, end: KnowledgeNode
) -> KnowledgeEdge:
    return KnowledgeEdge(
        owner_id=owner.node_id, from_id=start.node_id, kind=kind, to_id=end.node_id
    )


def _way_back(
    ports: Ports, tenant_id: TenantId, reached: dict[str, KnowledgeEdge | None], end: str
) -> KnowledgePath:
    ids, edges = [end], []
    while (edge := reached[ids[-1]]) is not None:
        edges.append(edge)
        ids.append(_other_end(edge, ids[-1]))
    known = ports.metadata.get_nodes(tenant_id, ids)
    if len(known) < len(set(ids)):
        # it leads over something that is only referred to, or the node itself is not there
        missing = {id_: KnowledgeNode(node_id=id_, kind=NodeKind.RELATION) for id_ in ids}
        if ids[0] not in known or ids[-1] not in known:
            return KnowledgePath()
        known = {**missing, **known}
    return KnowledgePath(
        nodes=tuple(known[id_] for id_ in reversed(ids)), edges=tuple(reversed(edges))
    )


def _edges(
    ports: Ports, tenant_id: TenantId, node_ids: Sequence[str], limit: int
) -> list[KnowledgeEdge]:
    """The edges of some nodes, at most `limit`."""
    found: list[KnowledgeEdge] = []
    for start in range(0, len(node_ids), STEP_NODES):
        ids, offset = node_ids[start : start + STEP_NODES], 0
        while len(found) < limit:
            step = min(STEP_EDGES, limit - len(found))
            page = ports.metadata.edges_of(tenant_id, ids, offset=offset, limit=step)
            found += page
            offset += len(page)
            if len(page) < step:
                break
    return found


def _other_end(edge: KnowledgeEdge, node_id: str) -> str:
    return edge.to_id if edge.from_id == node_id else edge.from_id
