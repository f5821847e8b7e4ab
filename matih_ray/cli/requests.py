"""Requests to the control API: where it is, who asks, and what an answer means."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from matih_ray.api.wire import PROBLEM_MEDIA_TYPE, PageBody, Problem
from matih_ray.cli.failures import EXIT_ENVIRONMENT, CliError, of_problem
from matih_ray.errors import MatihError
from matih_ray.model.value import JsonValue, Value

Body = TypeVar("Body", bound=Value)
Query = Mapping[str, str | int | float | list[str] | None]

CONNECT_TIMEOUT_S = 10.0
# The longest that the API itself lets a request take (collecting a catalog), and some.
ANSWER_TIMEOUT_S = 330.0
# Items asked for at a time.
PAGE_ITEMS = 500
# Five million items: more than any catalog or ledger that a person lists.
MAX_PAGES = 10_000

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class ClientSettings(BaseSettings):
    """Where the control API is and how to be let in; from the environment, prefix `MATIH_`."""

    model_config = SettingsConfigDict(env_prefix="MATIH_", frozen=True, extra="ignore")

    url: str = Field(default="http://127.0.0.1:8080", description="Address of the control API.")
    token: SecretStr | None = Field(default=None, description="Bearer token; see `matih token`.")


class ApiRequests:
    """What every call of a client goes through."""

    def __init__(self, settings: ClientSettings) -> None:
        self._url = settings.url.rstrip("/")
        self._token = settings.token
        self._http = httpx.Client(
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # a proxy has no business between two processes of one machine
            trust_env=urlsplit(self._url).hostname not in _LOOPBACK,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, kind: type[Body], path: str, query: Query | None = None) -> Body:
        return self._value(kind, self._send("GET", path, query=query))

    def _post(self, kind: type[Body], path: str, body: dict[str, JsonValue] | None = None) -> Body:
        return self._value(kind, self._send("POST", path, body=body))

    def _pages(self, kind: type[PageBody[Body]], path: str, query: Query) -> Iterator[Body]:
        page = self._get(kind, path, {**query, "limit": PAGE_ITEMS})
        for _ in range(MAX_PAGES):
            yield from page.items
            if page.next is None:
                return
            page = self._value(kind, self._send("GET", path + page.next))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: dict[str, JsonValue] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        url = f"/api/v1/tenants/{quote(self._tenant(), safe='')}{path}"
        return self._request(method, url, query or {}, body, headers or {})

    def _request(
        self,
        method: str,
        path: str,
        query: Query,
        body: dict[str, JsonValue] | None,
        headers: dict[str, str],
        *,
        with_token: bool = True,
    ) -> httpx.Response:
        given = {name: value for name, value in query.items() if value is not None}
        if with_token:
            headers = {**headers, "Authorization": f"Bearer {self._known_token()}"}
        try:
            response = self._http.request(
                method, self._url + path, params=given or None, json=body, headers=headers
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CliError(
                f"cannot reach the control API at {self._url} ({type(error).__name__}); "
                "is it running? set MATIH_URL or --url if it is elsewhere",
                EXIT_ENVIRONMENT,
            ) from None
        if response.is_success:
            return response
        if response.headers.get("content-type") == PROBLEM_MEDIA_TYPE:
            raise of_problem(self._value(Problem, response))
        raise self._not_ours(response)

    def _events(self, path: str, body: dict[str, JsonValue]) -> Iterator[tuple[str, str]]:
        """Kind and data of the server-sent events that a POST is answered with."""
        headers = {
            "Authorization": f"Bearer {self._known_token()}",
            "Accept": "text/event-stream",
        }
        try:
            with self._http.stream(
                "POST", self._url + path, json=body, headers=headers
            ) as response:
                if not response.is_success:
                    response.read()
                    if response.headers.get("content-type") == PROBLEM_MEDIA_TYPE:
                        raise of_problem(self._value(Problem, response))
                    raise self._not_ours(response)
                kind = ""
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, value
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise CliError(
                f"the connection to {self._url} broke ({type(error).__name__}); is it running?",
                EXIT_ENVIRONMENT,
            ) from None

    def _value(self, kind: type[Body], response: httpx.Response) -> Body:
        try:
            return kind.from_json(response.content)
        except MatihError:
            raise self._not_ours(response) from None

    def _not_ours(self, response: httpx.Response) -> CliError:
        return CliError(
            f"{self._url} answered {response.status_code} with something that is not the control "
            "API's; is MATIH_URL right, and of the same version?",
            EXIT_ENVIRONMENT,
        )

    def _known_token(self) -> str:
        if self._token is None or not self._token.get_secret_value().strip():
            raise CliError(
                "set MATIH_TOKEN to a bearer token; for a runtime on this machine: "
                'export MATIH_TOKEN="$(matih token)"',
                EXIT_ENVIRONMENT,
            )
        return self._token.get_secret_value().strip()

    def _tenant(self) -> str:
        """The tenant that the token is for. Read, not verified: the API does that."""
        try:
            payload = self._known_token().split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            tenant = claims["tenant"]
        except (IndexError, binascii.Error, ValueError, KeyError, TypeError):
            tenant = None
        if not isinstance(tenant, str) or not tenant:
            raise CliError(
                "MATIH_TOKEN is no token of the control API: it names no tenant",
                EXIT_ENVIRONMENT,
            )
        return tenant
