"""The knowledge base: things and how they are related, in a few words each, never rows.

Node ids are the ids of the canonical data model (`work.item:<endpoint>:<source id>`), or begin
with `connector:`, `dataset:` and `sink:` for what the runtime itself knows.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Annotated

from pydantic import Field

from matih_ray.model.ids import EndpointId, RunId, TenantId
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import Value

# A line of a list, and what a person reads before opening the thing itself.
MAX_TITLE_CHARS = 200
MAX_SUMMARY_CHARS = 400
# Edges that one row may have, such as the sprints that an issue was in.
MAX_EDGES_PER_NODE = 50
# Identifiers that a store takes have at most 500 bytes.
MAX_ID_BYTES = 400


class NodeKind(str, Enum):
    """What a node is."""

    PROJECT = "project"
    ISSUE = "issue"
    USER = "user"
    SPRINT = "sprint"
    SPACE = "space"
    PAGE = "page"
    CONNECTOR = "connector"
    DATASET = "dataset"
    SINK = "sink"
    RELATION = "relation"  # a link's own row, which is shown as the edge that it makes


class KnowledgeNode(Value):
    """One thing. Of two versions the greater stays; what is gone is kept, unseen, so that an older
    version cannot bring it back."""

    node_id: str
    kind: NodeKind
    endpoint_id: EndpointId | None = None
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] = ""
    key: Annotated[str | None, Field(max_length=MAX_TITLE_CHARS)] = None
    summary: Annotated[str | None, Field(max_length=MAX_SUMMARY_CHARS)] = None
    url: str | None = None
    version: int = 0
    gone: bool = False


class KnowledgeEdge(Value):
    """`from_id` is related to `to_id`; `owner_id` is the node that says so, and whose next version
    may no longer. The other end need not be known (yet)."""

    owner_id: str
    from_id: str
    kind: str
    to_id: str


class KnowledgePart(Value):
    """Some nodes, and all edges that they own."""

    nodes: tuple[KnowledgeNode, ...] = ()
    edges: tuple[KnowledgeEdge, ...] = ()


class KnowledgeStream(Value):
    """What the knowledge base knows of a stream that feeds it."""

    marker: CommitMarker | None = None
    runs: tuple[RunId, ...] = ()


class Neighbour(Value):
    """An edge of a node, and the node at its other end, None where that is not known."""

    kind: str
    outgoing: bool
    node_id: str
    node: KnowledgeNode | None = None


class KnowledgePath(Value):
    """The shortest way from one node to another; empty if there is none.

    `complete` is false if the search was given up at a limit, so that there may be one after all.
    """

    nodes: tuple[KnowledgeNode, ...] = ()
    edges: tuple[KnowledgeEdge, ...] = ()
    complete: bool = True


class KnowledgeSearch(Value):
    """What is looked for: every word in title, key or summary; among these kinds, if any."""

    tenant_id: TenantId
    words: tuple[str, ...] = ()
    kinds: tuple[NodeKind, ...] = ()


def stored_id(cdm_id: str) -> str:
    """An id that the store takes: itself, unless it is unreasonably long."""
    data = cdm_id.encode()
    if len(data) <= MAX_ID_BYTES:
        return cdm_id
    start = data[: MAX_ID_BYTES - 70].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(data).hexdigest()}"


def dataset_id(endpoint_id: str, unit_id: str) -> str:
    """The node of a unit."""
    return stored_id(f"dataset:{endpoint_id}:{unit_id}")


def cut(text: str, limit: int) -> str:
    """The beginning of a text, in one line and without what no store can hold."""
    line = " ".join(text[: 4 * limit].replace("\x00", " ").split())
    line = line.encode("utf-8", "replace").decode("utf-8")
    return line if len(line) <= limit else line[: limit - 1] + "…"
