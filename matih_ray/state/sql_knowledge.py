"""The knowledge base in SQL; see `KnowledgeStore` for what each method promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, false, insert, or_, select, tuple_, update

from matih_ray.errors import NotFoundError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.ids import TenantId
from matih_ray.model.knowledge import (
    KnowledgeEdge,
    KnowledgeNode,
    KnowledgePart,
    KnowledgeSearch,
    KnowledgeStream,
    NodeKind,
)
from matih_ray.state.knowledge import Judge
from matih_ray.state.names import check_page
from matih_ray.state.sql_part import SqlPart, stored_value
from matih_ray.state.tables import kb_edges, kb_nodes, kb_stages, kb_streams

# Ids in one condition: far below the 32,766 parameters of SQLite.
MAX_IDS = 500
_ESCAPE = "\\"


class SqlKnowledge(SqlPart):
    """Nodes, edges, stages and streams."""

    def stage_knowledge(
        self, stream: StreamKey, generation: str, stage: str, number: int, part: KnowledgePart
    ) -> None:
        """Keep a part of a stage, unseen."""
        statement = self._database.insert(kb_stages).values(
            tenant_id=stream.tenant_id,
            stage=stage,
            number=number,
            stream=stream.kv_key(),
            generation=generation,
            document=part.to_json(),
        )
        upsert = statement.on_conflict_do_update(
            index_elements=list(kb_stages.primary_key),
            set_={"document": statement.excluded.document},
        )
        with self._database.write("stage a part of the knowledge base") as connection:
            connection.execute(upsert)

    def drop_knowledge_stages(self, tenant_id: TenantId, stages: Sequence[str]) -> None:
        """Forget stages."""
        with self._database.write("drop stages of the knowledge base") as connection:
            _drop_stages(connection, tenant_id, stages)

    def commit_knowledge(
        self, stream: StreamKey, generation: str, stages: Sequence[str], judge: Judge
    ) -> bool:
        """Let the stages be seen, and the stream be what `judge` makes of it."""
        tenant_id, key = stream.tenant_id, stream.kv_key()
        with self._database.write(
            "commit to the knowledge base",
            violated=lambda: NotFoundError(
                f"no endpoint {stream.endpoint_id}", endpoint_id=stream.endpoint_id
            ),
        ) as connection:
            before = self._hold(connection, stream)
            after = judge(before)
            if after is None:
                return False
            for stage in stages:
                self._show(connection, tenant_id, stage)
            _drop_stages(connection, tenant_id, stages)
            if (
                before.marker is None
                or after.marker is None
                or (before.marker.run_id != after.marker.run_id)
            ):
                connection.execute(
                    delete(kb_stages).where(
                        kb_stages.c.tenant_id == tenant_id,
                        kb_stages.c.stream == key,
                        kb_stages.c.generation != generation,
                    )
                )
            connection.execute(
                update(kb_streams)
                .where(kb_streams.c.tenant_id == tenant_id, kb_streams.c.stream == key)
                .values(document=after.to_json())
            )
        return True

    def knowledge_stream(self, stream: StreamKey) -> KnowledgeStream:
        """What is known of the stream."""
        with self._database.write("read a stream of the knowledge base") as connection:
            return self._hold(connection, stream)

    def put_knowledge(self, tenant_id: TenantId, part: KnowledgePart) -> None:
        """Let a part be seen at once."""
        with self._database.write(
            "write to the knowledge base", violated=lambda: NotFoundError("the endpoint is gone")
        ) as connection:
            self._put(connection, tenant_id, part)

    def get_nodes(self, tenant_id: TenantId, node_ids: Sequence[str]) -> dict[str, KnowledgeNode]:
        """Those of the nodes that are there."""
        found: dict[str, KnowledgeNode] = {}
        with self._database.read("read the knowledge base") as connection:
            for ids in _chunks(node_ids):
                query = select(kb_nodes).where(
                    kb_nodes.c.tenant_id == tenant_id,
                    kb_nodes.c.node_id.in_(ids),
                    kb_nodes.c.hidden.is_(False),
                )
                found |= {row.node_id: _node(row) for row in connection.execute(query)}
        return found

    def find_nodes(
        self, search: KnowledgeSearch, *, offset: int = 0, limit: int = 100
    ) -> list[KnowledgeNode]:
        """A page of what is found, ordered by id."""
        check_page(offset, limit)
        query = select(kb_nodes).where(
            kb_nodes.c.tenant_id == search.tenant_id, kb_nodes.c.hidden.is_(False)
        )
        if search.kinds:
            query = query.where(kb_nodes.c.kind.in_([kind.value for kind in search.kinds]))
        for word in search.words:
            query = query.where(
                kb_nodes.c.words.contains(word.lower(), autoescape=True, escape=_ESCAPE)
            )
        query = query.order_by(kb_nodes.c.node_id).offset(offset).limit(limit)
        with self._database.read("search the knowledge base") as connection:
            return [_node(row) for row in connection.execute(query)]

    def edges_of(
        self, tenant_id: TenantId, node_ids: Sequence[str], *, offset: int = 0, limit: int = 100
    ) -> list[KnowledgeEdge]:
        """A page of the edges that begin or end at one of the nodes."""
        check_page(offset, limit)
        check_page(0, max(len(node_ids), 1))
        ends = or_(
            kb_edges.c.from_id.in_(node_ids) if node_ids else false(),
            kb_edges.c.to_id.in_(node_ids) if node_ids else false(),
        )
        query = (
            select(kb_edges)
            .where(kb_edges.c.tenant_id == tenant_id, ends)
            .order_by(kb_edges.c.from_id, kb_edges.c.kind, kb_edges.c.to_id, kb_edges.c.owner_id)
            .offset(offset)
            .limit(limit)
        )
        with self._database.read("read edges of the knowledge base") as connection:
            return [_edge(row) for row in connection.execute(query)]

    def _hold(self, connection: Connection, stream: StreamKey) -> KnowledgeStream:
        """The stream's row, held until the transaction ends."""
        key = {"tenant_id": stream.tenant_id, "stream": stream.kv_key()}
        statement = self._database.insert(kb_streams)
        connection.execute(
            statement.values(
                **key,
                endpoint_id=stream.endpoint_id,
                document=KnowledgeStream().to_json(),
            ).on_conflict_do_nothing()
        )
        document = connection.scalar(
            select(kb_streams.c.document)
            .where(*(kb_streams.c[name] == value for name, value in key.items()))
            .with_for_update()
        )
        return stored_value(KnowledgeStream, str(document))

    def _show(self, connection: Connection, tenant_id: TenantId, stage: str) -> None:
        query = (
            select(kb_stages.c.document)
            .where(kb_stages.c.tenant_id == tenant_id, kb_stages.c.stage == stage)
            .order_by(kb_stages.c.number)
        )
        for document in connection.scalars(query).all():
            self._put(connection, tenant_id, stored_value(KnowledgePart, document))

    def _put(self, connection: Connection, tenant_id: TenantId, part: KnowledgePart) -> None:
        """Nodes that are not older than what is there, and the edges that they own now."""
        nodes = {node.node_id: node for node in part.nodes}  # the last of one id
        ids = sorted(nodes)
        for chunk in _chunks(ids):
            known = {
                row.node_id: row
                for row in connection.execute(
                    select(kb_nodes)
                    .where(kb_nodes.c.tenant_id == tenant_id, kb_nodes.c.node_id.in_(chunk))
                    .order_by(kb_nodes.c.node_id)
                    .with_for_update()
                )
            }
            newer = [nodes[id_] for id_ in chunk if _is_newer(nodes[id_], known.get(id_))]
            rows = [_row(tenant_id, node, self._clock()) for node in newer]
            changed = [row for row in rows if _differs(row, known.get(row["node_id"]))]
            if changed:
                statement = self._database.insert(kb_nodes)
                values = ("kind", "endpoint_id", "version", "hidden", "words", "document")
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=list(kb_nodes.primary_key),
                        set_={
                            **{name: statement.excluded[name] for name in values},
                            "updated_at": statement.excluded.updated_at,
                        },
                    ),
                    changed,
                )
            self._put_edges(connection, tenant_id, newer, part)

    def _put_edges(
        self,
        connection: Connection,
        tenant_id: TenantId,
        owners: Sequence[KnowledgeNode],
        part: KnowledgePart,
    ) -> None:
        endpoint_of = {node.node_id: node.endpoint_id for node in owners}
        wanted = {
            (edge.owner_id, edge.from_id, edge.kind, edge.to_id)
            for edge in part.edges
            if edge.owner_id in endpoint_of
        }
        key = tuple_(kb_edges.c.owner_id, kb_edges.c.from_id, kb_edges.c.kind, kb_edges.c.to_id)
        of_owners = and_(
            kb_edges.c.tenant_id == tenant_id, kb_edges.c.owner_id.in_(list(endpoint_of))
        )
        there = {tuple(row[1:5]) for row in connection.execute(select(kb_edges).where(of_owners))}
        for chunk in _chunks(sorted(there - wanted)):
            connection.execute(
                delete(kb_edges).where(kb_edges.c.tenant_id == tenant_id, key.in_(chunk))
            )
        if new := sorted(wanted - there):
            names = ("owner_id", "from_id", "kind", "to_id")
            connection.execute(
                insert(kb_edges),
                [
                    {
                        "tenant_id": tenant_id,
                        **dict(zip(names, one, strict=True)),
                        "endpoint_id": endpoint_of[one[0]],
                    }
                    for one in new
                ],
            )


def _chunks(items: Sequence[Any]) -> list[list[Any]]:
    return [list(items[start : start + MAX_IDS]) for start in range(0, len(items), MAX_IDS)]


def _drop_stages(connection: Connection, tenant_id: TenantId, stages: Sequence[str]) -> None:
    for chunk in _chunks(stages):
        connection.execute(
            delete(kb_stages).where(
                kb_stages.c.tenant_id == tenant_id, kb_stages.c.stage.in_(chunk)
            )
        )


def _row(tenant_id: TenantId, node: KnowledgeNode, now: datetime) -> dict[str, Any]:
    told = {
        "title": node.title,
        "key": node.key,
        "summary": node.summary,
        "url": node.url,
        "gone": node.gone,
    }
    texts = (node.key, node.title, node.summary)
    return {
        "tenant_id": tenant_id,
        "node_id": node.node_id,
        "kind": node.kind.value,
        "endpoint_id": node.endpoint_id,
        "version": node.version,
        "hidden": node.gone or node.kind is NodeKind.RELATION,
        "words": "\n".join(text.lower() for text in texts if text),
        "document": json.dumps(told, ensure_ascii=False),
        "updated_at": now,
    }


def _is_newer(node: KnowledgeNode, row: Row[Any] | None) -> bool:
    return row is None or node.version >= row.version


def _differs(row: dict[str, Any], known: Row[Any] | None) -> bool:
    return known is None or any(
        getattr(known, name) != value for name, value in row.items() if name != "updated_at"
    )


def _node(row: Row[Any]) -> KnowledgeNode:
    return stored_value(
        KnowledgeNode,
        row.document,
        nodeId=row.node_id,
        kind=row.kind,
        endpointId=row.endpoint_id,
        version=row.version,
    )


def _edge(row: Row[Any]) -> KnowledgeEdge:
    return KnowledgeEdge(owner_id=row.owner_id, from_id=row.from_id, kind=row.kind, to_id=row.to_id)
