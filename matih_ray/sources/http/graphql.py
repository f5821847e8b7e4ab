"""The GraphQL source endpoint: each stream is a query that is asked with POST."""

from __future__ import annotations

import builtins
from typing import Any, ClassVar, cast

from matih_ray.errors import (
    AuthenticationFailedError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceRejectedError,
)
from matih_ray.model.value import Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.http.client import Answer, Request, Server
from matih_ray.sources.http.config import (
    CursorPages,
    GraphqlConfig,
    GraphqlStream,
    NoPages,
    OffsetPages,
    Stream,
)
from matih_ray.sources.http.endpoint import HttpSource
from matih_ray.sources.http.json_values import at_path
from matih_ray.sources.http.pagination import Params, StreamPages, Style

MINIMAL_QUERY = "{ __typename }"
# `extensions.code` of common servers.
_BY_CODE: dict[str, type[SourceError]] = {
    "UNAUTHENTICATED": AuthenticationFailedError,
    "FORBIDDEN": SourcePermissionError,
}


class GraphqlSource(HttpSource):
    """One GraphQL API."""

    type: ClassVar[str] = "GRAPHQL"
    vendor: ClassVar[str] = "http.graphql"
    config_model: ClassVar[builtins.type[Value]] = GraphqlConfig

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `GraphqlConfig`, or a secret is missing.
        """
        config = GraphqlConfig.from_json(dict(spec.config))
        server = Server(
            url=config.url,
            headers=config.headers,
            auth=config.auth,
            auth_url=config.auth_url,
            ssl_root_cert=config.ssl_root_cert,
            limits=config.limits,
            host_policy=spec.host_policy,
        )
        super().__init__(spec, server, config.streams)
        self._url = config.url

    def _asked_by_test(self) -> Answer:
        request = Request(self._url, {}, {"query": MINIMAL_QUERY})
        answer = self._client.fetch(request, max_retries=0)
        data_of(answer.body, "the API")
        return answer

    def _pages(self, stream: Stream) -> StreamPages:
        declared = cast("GraphqlStream", stream)

        def request(params: Params) -> Request:
            variables = {**declared.variables, **params}
            return Request(self._url, {}, {"query": declared.query, "variables": variables})

        def records(body: Any) -> list[Any]:
            found = at_path(data_of(body, declared.name), declared.record_path)
            if declared.pagination == "relay":
                found = _nodes(found)
            if not isinstance(found, list):
                raise SourceChangedError(
                    f"{declared.name}: there are no records at recordPath {declared.record_path}; "
                    "correct the stream or its query",
                    unit=declared.name,
                )
            return found

        return StreamPages(
            name=declared.name,
            style=_style(declared),
            request=request,
            records=records,
            client=self._client,
            limits=self._limits,
        )


def data_of(body: Any, name: str) -> dict[str, Any]:
    """The data of an answer that has all of it.

    Raises:
        SourceError: The answer has errors, with or without a part of the data, or is not GraphQL's.
    """
    errors = body.get("errors") if isinstance(body, dict) else None
    if errors:
        first = errors[0] if isinstance(errors, list) else None
        code = at_path(first, "extensions.code")
        kind = _BY_CODE.get(code, SourceRejectedError) if isinstance(code, str) else None
        shown = code[:100] if isinstance(code, str) else "no code"
        partial = ", together with a part of the data, which is refused" if body.get("data") else ""
        raise (kind or SourceRejectedError)(
            f"{name}: the query has errors ({shown}){partial}; run it in the API's own console",
            unit=name,
        )
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise SourceRejectedError(f"{name}: the answer is not one of a GraphQL API; check the url")
    return data


def _nodes(connection: Any) -> list[Any] | None:
    """The records of a Relay connection."""
    if not isinstance(connection, dict):
        return None
    if isinstance(connection.get("nodes"), list):
        return list(connection["nodes"])
    edges = connection.get("edges")
    if not isinstance(edges, list) or not isinstance(connection.get("pageInfo"), dict):
        return None
    return [edge.get("node") if isinstance(edge, dict) else None for edge in edges]


def _style(stream: GraphqlStream) -> Style:
    if stream.pagination == "none":
        return NoPages()
    if stream.pagination == "offset":
        return OffsetPages(
            param=stream.page_variable or "offset",
            size_param=stream.size_variable or "limit",
            size=stream.page_size,
            total_path=None if stream.total_path is None else f"data.{stream.total_path}",
        )
    # a Relay connection (GraphQL Cursor Connections Specification §4 and §5)
    return CursorPages(
        param=stream.page_variable or "after",
        next_path=f"data.{stream.record_path}.pageInfo.endCursor",
        more_path=f"data.{stream.record_path}.pageInfo.hasNextPage",
        size_param=stream.size_variable or "first",
        size=stream.page_size,
    )
