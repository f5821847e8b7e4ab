"""Rules: what of a model's row goes into the knowledge base. Pure, Arrow in and values out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from matih_ray.model.ids import EndpointId
from matih_ray.model.knowledge import (
    MAX_EDGES_PER_NODE,
    MAX_SUMMARY_CHARS,
    MAX_TITLE_CHARS,
    KnowledgeEdge,
    KnowledgeNode,
    KnowledgePart,
    NodeKind,
    cut,
    dataset_id,
    stored_id,
)

# An address is shown whole or not at all.
MAX_URL_CHARS = 1000
_ENVELOPE = (
    "cdm_id",
    "source_endpoint_id",
    "source_unit_id",
    "source_version",
    "is_deleted",
)
# What leads to the dataset that it was read from; all things would make a dataset a hub.
_OF_DATASETS = (NodeKind.PROJECT, NodeKind.SPACE)


@dataclass(frozen=True)
class NodeRule:
    """Columns that make a node, and columns with ids of other nodes, by the kind of the edge.

    `source` is the column with the id that edges begin at, where that is not the row itself.
    """

    kind: NodeKind
    title: str | None = None
    key: str | None = None
    summary: str | None = None
    url: str | None = None
    edges: tuple[tuple[str, str], ...] = ()
    source: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is looked at."""
        named = (self.title, self.key, self.summary, self.url, self.source)
        edges = tuple(column for _, column in self.edges)
        return (*_ENVELOPE, *(name for name in named if name is not None), *edges)


RULES: dict[str, NodeRule] = {
    "cdm.work.project": NodeRule(
        NodeKind.PROJECT,
        title="name",
        key="project_key",
        summary="description",
        url="url",
        edges=(("led_by", "lead_cdm_id"),),
    ),
    "cdm.work.item": NodeRule(
        NodeKind.ISSUE,
        title="summary",
        key="item_key",
        summary="description",
        url="url",
        edges=(
            ("in_project", "project_cdm_id"),
            ("assigned_to", "assignee_cdm_id"),
            ("reported_by", "reporter_cdm_id"),
            ("part_of", "parent_cdm_id"),
            ("in_sprint", "sprint_cdm_ids"),
        ),
    ),
    # the name, as it is shown everywhere; neither address nor time zone
    "cdm.work.user": NodeRule(NodeKind.USER, title="display_name"),
    "cdm.work.sprint": NodeRule(NodeKind.SPRINT, title="name", summary="goal"),
    "cdm.work.link": NodeRule(
        NodeKind.RELATION,
        title="link_type",
        source="from_item_cdm_id",
        edges=(("related_to", "to_item_cdm_id"),),
    ),
    "cdm.doc.space": NodeRule(
        NodeKind.SPACE, title="name", key="space_key", summary="description", url="url"
    ),
    # its path and not the beginning of its body, which is markup
    "cdm.doc.item": NodeRule(
        NodeKind.PAGE,
        title="title",
        summary="path",
        url="url",
        edges=(("in_space", "space_cdm_id"), ("part_of", "parent_item_cdm_id")),
    ),
    "cdm.doc.link": NodeRule(
        NodeKind.RELATION,
        title="link_type",
        source="from_item_cdm_id",
        edges=(("links_to", "to_item_cdm_id"),),
    ),
}


def part_of(model_id: str, batch: pa.RecordBatch) -> KnowledgePart:
    """The nodes and edges of a batch of a model's rows."""
    rule = RULES[model_id]
    rows = batch.select(sorted(set(rule.columns))).to_pylist()
    nodes, edges = [], []
    for row in rows:
        node = _node(rule, row)
        nodes.append(node)
        if not node.gone:
            edges += list(_edges(rule, node, row))[:MAX_EDGES_PER_NODE]
    return KnowledgePart(nodes=tuple(nodes), edges=tuple(edges))


def _node(rule: NodeRule, row: dict[str, Any]) -> KnowledgeNode:
    def text(column: str | None, limit: int) -> str | None:
        value = None if column is None else row[column]
        return None if not value else cut(str(value), limit)

    gone = bool(row["is_deleted"])
    url = None if rule.url is None or not row[rule.url] else str(row[rule.url])
    return KnowledgeNode(
        node_id=stored_id(str(row["cdm_id"])),
        kind=rule.kind,
        endpoint_id=EndpointId(str(row["source_endpoint_id"])),
        title=text(rule.title, MAX_TITLE_CHARS) or "",
        key=text(rule.key, MAX_TITLE_CHARS),
        summary=text(rule.summary, MAX_SUMMARY_CHARS),
        url=url if url is not None and len(url) <= MAX_URL_CHARS else None,
        version=int(row["source_version"] or 0),
        gone=gone,
    )


def _edges(rule: NodeRule, node: KnowledgeNode, row: dict[str, Any]) -> Iterator[KnowledgeEdge]:
    source = node.node_id if rule.source is None else row[rule.source]
    if not source:
        return
    if rule.kind in _OF_DATASETS:
        dataset = dataset_id(str(row["source_endpoint_id"]), str(row["source_unit_id"]))
        yield _edge(node, node.node_id, "read_from", dataset)
    for kind, column in rule.edges:
        value = row[column]
        for other in value if isinstance(value, list) else [value]:
            if other:
                yield _edge(node, str(source), kind, str(other))


def _edge(owner: KnowledgeNode, from_id: str, kind: str, to_id: str) -> KnowledgeEdge:
    return KnowledgeEdge(
        owner_id=owner.node_id, from_id=stored_id(from_id), kind=kind, to_id=stored_id(to_id)
    )
