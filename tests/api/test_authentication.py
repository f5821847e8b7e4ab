"""Only tokens that we signed, for us, unexpired and with a tenant are let in."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import jwt
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from pydantic import SecretStr

from matih_ray.api.app import create_app
from matih_ray.api.tokens import KEY_FILE, open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.errors import ConfigurationError, UnauthenticatedError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from tests.api.lab import Client, Lab, assert_problem
from tests.identity_provider import IdentityProvider
from tests.identity_provider import signed as rs256

KEY = "k" * 32
NOW = datetime.now(timezone.utc)
CLAIMS = {
    "iss": "matih",
    "aud": "matih-ray",
    "exp": NOW + timedelta(days=1),  # when this was imported
    "sub": "ann",
    "tenant": "acme",
    "roles": ["ROLE_VIEWER", "SOMEBODY_ELSES_ROLE"],
}


def tokens():
    return open_tokens(Settings(jwt_secret=SecretStr(KEY)))


def signed(key: str = KEY, algorithm: str = "HS256", **changes) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


def test_a_valid_token_names_its_holder():
    principal = tokens().principal(signed())
    assert principal == Principal("ann", TenantId("acme"), frozenset({Role.VIEWER}))


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_an_issued_token_is_accepted():
    principal = Principal("bob", TenantId("t"), frozenset({Role.ADMIN, Role.VIEWER}))
    assert tokens().principal(tokens().issue(principal, now(), 60)) == principal


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(exp=NOW - timedelta(minutes=5)), id="expired"),
        pytest.param(signed(exp=None), id="no-expiry"),
        pytest.param(signed(iss="somebody"), id="other-issuer"),
        pytest.param(signed(iss=None), id="no-issuer"),
        pytest.param(signed(aud="another-service"), id="other-audience"),
        pytest.param(signed(aud=None), id="no-audience"),
        pytest.param(signed(sub=None), id="no-subject"),
        pytest.param(signed(sub=""), id="empty-subject"),
        pytest.param(signed(tenant=None), id="no-tenant"),
        pytest.param(signed(tenant=""), id="empty-tenant"),
        pytest.param(signed(tenant=["acme"]), id="tenant-list"),
        pytest.param(signed(roles=None), id="no-roles"),
        pytest.param(signed(roles="ROLE_ADMIN"), id="roles-text"),
        pytest.param(signed(roles=[{}, 3]) + "x", id="broken-signature"),
        pytest.param(signed(nbf=NOW + timedelta(hours=12)), id="not-yet-valid"),
        pytest.param(signed(key="x" * 32), id="other-key"),
        pytest.param(signed(key="k" * 64, algorithm="HS512"), id="other-algorithm"),
        pytest.param(signed(key="", algorithm="none"), id="unsigned"),
        pytest.param("not.a.token", id="nonsense"),
        pytest.param("a" * 9000, id="too-long"),
    ],
)
def test_anything_else_is_refused(token: str):
    with pytest.raises(UnauthenticatedError) as caught:
        tokens().principal(token)
    assert token[:40] not in str(caught.value)


def test_strange_roles_are_no_roles():
    assert tokens().principal(signed(roles=["ROLE_ROOT"])).roles == frozenset()


def test_a_role_that_cannot_be_hashed_is_refused():
    with pytest.raises(UnauthenticatedError):
        tokens().principal(signed(roles=[{"ROLE_ADMIN": 1}]))


def test_the_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path):
    settings = Settings(home=tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: open_tokens(settings), range(8)))
    token = made[0].issue(
        Principal("a", TenantId("t"), frozenset()), datetime.now(timezone.utc), 60
    )
    assert {each.principal(token).subject for each in made} == {"a"}
    path = tmp_path / "home" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [KEY_FILE]


def test_the_key_file_is_not_made_where_it_must_exist(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="no key file"):
        open_tokens(Settings(home=tmp_path), create_key=False)
    assert list(tmp_path.iterdir()) == []


def test_a_short_secret_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as caught:
        open_tokens(Settings(jwt_secret=SecretStr("tooshort")))
    assert "tooshort" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "bearer not.a.token", "Token abc"],
)
def test_requests_without_a_valid_token_get_401(lab: Lab, header: str | None):
    headers = {"Authorization": header or ""}
    for path in (lab.path("/endpoints"), "/api/v1/plugins", "/", "/api/v1/nothing"):
        response = lab.client.get(path, headers=headers)
        assert_problem(response, 401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"


def test_health_and_the_api_description_need_no_token(lab: Lab):
    for path in ("/api/v1/health", "/api/v1/health/ready", "/api/v1/openapi.json"):
        assert lab.client.get(path, headers={"Authorization": ""}).status_code == 200


def test_an_unreadable_body_is_not_looked_at_before_the_token(lab: Lab):
    response = lab.call("POST", "/endpoints", content=b"{not json", headers={"Authorization": ""})
    assert_problem(response, 401, "UNAUTHENTICATED")


def test_the_app_does_not_start_with_a_short_secret(lab: Lab):
    settings = lab.ports.settings.model_copy(update={"jwt_secret": SecretStr("short")})
    with pytest.raises(ConfigurationError):
        create_app(replace(lab.ports, settings=settings))


# --- with an identity provider ---------------------------------------------------------------


def with_provider(lab: Lab, provider: IdentityProvider) -> FastAPI:
    """The same application, for tokens of a provider."""
    settings = lab.ports.settings.model_copy(update={"jwt_jwks_url": provider.url})
    return create_app(replace(lab.ports, settings=settings))


def ask(app: FastAPI, path: str, token: str) -> httpx.Response:
    with start_blocking_portal() as portal:
        client = Client(portal, app, {"Authorization": f"Bearer {token}"})
        return client.get(path)


def test_tokens_of_an_identity_provider_are_let_in_and_ours_are_not(lab: Lab):
    path = lab.path("/endpoints")
    ours = lab.as_(*Role)["Authorization"].removeprefix("Bearer ")
    assert lab.client.get(path).status_code == 200
    with IdentityProvider("one") as provider:
        app = with_provider(lab, provider)
        assert ask(app, path, rs256("one")).status_code == 200
        assert_problem(ask(app, path, ours), 401, "UNAUTHENTICATED")
        assert_problem(ask(app, path, rs256("stranger", kid="one")), 401, "UNAUTHENTICATED")
        assert_problem(ask(app, path, rs256("one", roles=[])), 403, "FORBIDDEN")
        assert_problem(ask(app, path, rs256("one", tenant="globex")), 403, "FORBIDDEN")
    assert_problem(
        lab.client.get(path, headers={"Authorization": f"Bearer {rs256('one')}"}),
        401,
        "UNAUTHENTICATED",
    )


def test_a_provider_that_is_away_is_not_the_callers_fault(lab: Lab):
    with IdentityProvider("one") as provider:
        app = with_provider(lab, provider)
    response = ask(app, lab.path("/endpoints"), rs256("one"))
    problem = assert_problem(response, 503, "IDENTITY_PROVIDER_UNAVAILABLE")
    assert problem["retryable"] is True
    assert "127.0.0.1" not in response.text
