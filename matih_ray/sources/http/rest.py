"""The REST source endpoint: each stream is a path that is asked with GET."""

from __future__ import annotations

import builtins
from typing import Any, ClassVar, cast

from matih_ray.errors import SourceChangedError
from matih_ray.model.value import Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.http.client import Answer, Request, Server
from matih_ray.sources.http.config import RestConfig, RestStream, Stream
from matih_ray.sources.http.endpoint import HttpSource
from matih_ray.sources.http.json_values import at_path
from matih_ray.sources.http.pagination import Params, StreamPages


class RestSource(HttpSource):
    """One REST API with JSON answers."""

    type: ClassVar[str] = "REST"
    vendor: ClassVar[str] = "http.rest"
    config_model: ClassVar[builtins.type[Value]] = RestConfig

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `RestConfig`, or a secret is missing.
        """
        config = RestConfig.from_json(dict(spec.config))
        server = Server(
            url=config.base_url,
            headers=config.headers,
            auth=config.auth,
            auth_url=config.auth_url,
            ssl_root_cert=config.ssl_root_cert,
            limits=config.limits,
            host_policy=spec.host_policy,
        )
        super().__init__(spec, server, config.streams)
        self._config = config

    def _asked_by_test(self) -> Answer:
        if self._config.test_path is None:
            return self._pages(self._config.streams[0]).fetch({}, max_retries=0)
        return self._client.fetch(Request(self._url(self._config.test_path), {}), max_retries=0)

    def _pages(self, stream: Stream) -> StreamPages:
        declared = cast("RestStream", stream)

        def request(params: Params) -> Request:
            return Request(self._url(declared.path), {**declared.params, **params})

        def records(body: Any) -> list[Any]:
            found = at_path(body, declared.record_path)
            if not isinstance(found, list):
                raise SourceChangedError(
                    f"{declared.name}: there is no list of records at recordPath "
                    f"{declared.record_path or '(the whole answer)'}; correct the stream",
                    unit=declared.name,
                )
            return found

        return StreamPages(
            name=declared.name,
            style=declared.pagination,
            request=request,
            records=records,
            client=self._client,
            limits=self._limits,
        )

    def _url(self, path: str) -> str:
        base = self._config.base_url.rstrip("/")
        return f"{base}/{path.lstrip('/')}" if path else base
