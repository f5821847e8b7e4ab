"""Tokens of an identity provider: its keys over real HTTP, and what attackers try with them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from matih_ray.api.jwks import (
    KEYS_TTL_S,
    MAX_DOCUMENT_BYTES,
    MAX_KEYS,
    MIN_REFETCH_S,
    STALE_KEYS_S,
    JwksError,
    JwksKeys,
    usable_keys,
)
from matih_ray.api.tokens import KEY_FILE, Tokens, open_tokens
from matih_ray.control.authorization import Principal, Role
from matih_ray.errors import (
    ConfigurationError,
    IdentityProviderUnavailableError,
    UnauthenticatedError,
)
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from tests.identity_provider import (
    CLAIMS,
    NOW,
    IdentityProvider,
    private_key,
    public_entry,
    signed,
)

ANN = Principal("ann", TenantId("acme"), frozenset({Role.VIEWER}))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider("one", "two") as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(provider: IdentityProvider, clock: Clock) -> Tokens:
    return Tokens(JwksKeys(provider.url, clock), "matih", "matih-ray")


# --- who is let in ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_token_of_the_provider_names_its_holder(tokens: Tokens, name: str):
    assert tokens.principal(signed(name)) == ANN
    assert asyncio.run(tokens.authenticate(signed(name))) == ANN


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"exp": NOW - timedelta(minutes=5)}, id="expired"),
        pytest.param({"exp": None}, id="no-expiry"),
        pytest.param({"nbf": NOW + timedelta(hours=12)}, id="not-yet-valid"),
        pytest.param({"iat": NOW + timedelta(hours=12)}, id="issued-in-future"),
        pytest.param({"iss": "somebody"}, id="other-issuer"),
        pytest.param({"iss": None}, id="no-issuer"),
        pytest.param({"aud": "another-service"}, id="other-audience"),
        pytest.param({"aud": None}, id="no-audience"),
        pytest.param({"sub": None}, id="no-subject"),
        pytest.param({"tenant": None}, id="no-tenant"),
        pytest.param({"tenant": ["acme"]}, id="tenant-list"),
        pytest.param({"roles": None}, id="no-roles"),
        pytest.param({"roles": "ROLE_ADMIN"}, id="roles-text"),
        pytest.param({"kid": None}, id="no-kid"),
        pytest.param({"kid": "two"}, id="kid-of-another-key"),
        pytest.param({"kid": "three"}, id="unknown-kid"),
    ],
)
def test_a_token_that_is_wrong_in_one_way_is_refused(tokens: Tokens, changes: dict):
    assert tokens.principal(signed("one")) == ANN
    token = signed("one", **changes)
    with pytest.raises(UnauthenticatedError) as caught:
        tokens.principal(token)
    assert token[:40] not in str(caught.value)


def test_a_key_of_somebody_else_under_a_known_name_is_refused(tokens: Tokens):
    with pytest.raises(UnauthenticatedError):
        tokens.principal(signed("stranger", kid="one"))


def test_a_changed_claim_is_refused(tokens: Tokens):
    header, claims, signature = signed("one").split(".")
    changed = json.loads(_decoded(claims)) | {"tenant": "globex"}
    with pytest.raises(UnauthenticatedError):
        tokens.principal(f"{header}.{_encoded(json.dumps(changed).encode())}.{signature}")


# --- algorithm confusion ---------------------------------------------------------------------


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forged(secret: bytes, algorithm: str = "HS256", kid: str = "one") -> str:
    """A token made by hand, because PyJWT refuses to sign with a public key."""
    header = _encoded(json.dumps({"alg": algorithm, "typ": "JWT", "kid": kid}).encode())
    times = {"exp": int((NOW + timedelta(hours=12)).timestamp())}
    body = f"{header}.{_encoded(json.dumps({**CLAIMS, **times}).encode())}"
    if algorithm == "none":
        return f"{body}."
    return f"{body}.{_encoded(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def public_forms() -> list[bytes]:
    """Everything about the public key that an attacker may take for a shared secret."""
    key = private_key("one").public_key()
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    info, pkcs1 = (
        serialization.PublicFormat.SubjectPublicKeyInfo,
        serialization.PublicFormat.PKCS1,
    )
    return [
        key.public_bytes(pem, info),
        key.public_bytes(pem, pkcs1),
        key.public_bytes(der, info),
        str(public_entry("one")["n"]).encode(),
        json.dumps(public_entry("one")).encode(),
        b"",
    ]


def test_the_forgeries_are_well_made(tmp_path: Path):
    """Where that secret is the right one, they are let in."""
    secret = open_tokens(Settings(jwt_secret=SecretStr("k" * 32), home=tmp_path))
    assert secret.principal(forged(b"k" * 32)) == ANN


@pytest.mark.parametrize("form", range(6))
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "none", "hs256", "None"])
def test_the_public_key_is_no_secret_to_sign_with(tokens: Tokens, form: int, algorithm: str):
    assert tokens.principal(signed("one")) == ANN
    with pytest.raises(UnauthenticatedError):
        tokens.principal(forged(public_forms()[form], algorithm))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_other_algorithms_of_the_same_key_are_refused(tokens: Tokens, algorithm: str):
    token = jwt.encode(CLAIMS, private_key("one"), algorithm=algorithm, headers={"kid": "one"})
    with pytest.raises(UnauthenticatedError, match="RS256"):
        tokens.principal(token)


def test_a_runtime_with_a_shared_secret_takes_no_rs256(tmp_path: Path):
    secret = open_tokens(Settings(jwt_secret=SecretStr("k" * 32), home=tmp_path))
    with pytest.raises(UnauthenticatedError, match="HS256"):
        secret.principal(signed("one"))


def test_tokens_of_another_algorithm_ask_nobody(tokens: Tokens, provider: IdentityProvider):
    for algorithm in ("HS256", "none"):
        with pytest.raises(UnauthenticatedError):
            tokens.principal(forged(b"x" * 32, algorithm))
    for token in ("", "not.a.token", "a" * 9000, "a.b"):
        with pytest.raises(UnauthenticatedError):
            tokens.principal(token)
    assert provider.asked == 0


def test_keys_that_a_token_brings_along_are_ignored(tokens: Tokens, provider: IdentityProvider):
    headers = {"kid": "one", "jwk": public_entry("stranger"), "jku": f"{provider.url}/evil"}
    token = jwt.encode(CLAIMS, private_key("stranger"), algorithm="RS256", headers=headers)
    with pytest.raises(UnauthenticatedError):
        tokens.principal(token)
    assert provider.asked == 1


# --- how often the provider is asked ---------------------------------------------------------


def test_known_keys_are_asked_for_once(tokens: Tokens, provider: IdentityProvider):
    for _ in range(10):
        assert tokens.principal(signed("one")) == tokens.principal(signed("two")) == ANN
    assert provider.asked == 1


def test_random_key_names_cannot_hammer_the_provider(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    assert tokens.principal(signed("one")) == ANN
    for second in range(60):
        clock.now_s += 1
        for number in range(5):
            with pytest.raises(UnauthenticatedError):
                tokens.principal(signed("one", kid=f"random-{second}-{number}"))
    assert provider.asked <= 1 + 60 / MIN_REFETCH_S
    assert tokens.principal(signed("one")) == ANN


def test_a_new_key_is_found_by_asking_again(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    assert tokens.principal(signed("one")) == ANN
    provider.entries.append(public_entry("three"))
    with pytest.raises(UnauthenticatedError):
        tokens.principal(signed("three"))
    clock.now_s += MIN_REFETCH_S
    assert tokens.principal(signed("three")) == ANN
    assert provider.asked == 2


def test_a_withdrawn_key_is_trusted_until_its_time_is_over(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    assert tokens.principal(signed("one")) == ANN
    del provider.entries[0]
    clock.now_s += KEYS_TTL_S - 1
    assert tokens.principal(signed("one")) == ANN
    clock.now_s += 1
    with pytest.raises(UnauthenticatedError):
        tokens.principal(signed("one"))
    assert tokens.principal(signed("two")) == ANN


def test_an_outage_of_the_provider_locks_nobody_out_for_a_while(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    assert tokens.principal(signed("one")) == ANN
    provider.stop()
    clock.now_s += STALE_KEYS_S - 1
    assert tokens.principal(signed("one")) == ANN
    clock.now_s += 1
    with pytest.raises(IdentityProviderUnavailableError):
        tokens.principal(signed("one"))


def test_a_provider_that_never_answered_is_not_the_callers_fault(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    provider.status = 500
    for _ in range(5):
        with pytest.raises(IdentityProviderUnavailableError):
            tokens.principal(signed("one"))
    assert provider.asked == 1
    provider.status = 200
    clock.now_s += MIN_REFETCH_S
    assert tokens.principal(signed("one")) == ANN


def test_the_event_loop_does_not_wait_for_the_provider(
    tokens: Tokens, provider: IdentityProvider, clock: Clock
):
    """While one caller's unknown key is asked for, others are let in."""

    async def scene() -> None:
        assert await tokens.authenticate(signed("one")) == ANN
        provider.arrived.get(timeout=30)
        clock.now_s += KEYS_TTL_S + 1
        provider.may_answer.clear()
        strangers = [
            asyncio.create_task(tokens.authenticate(signed("three", kid=f"{number}")))
            for number in range(100)
        ]
        await asyncio.to_thread(provider.arrived.get, timeout=30)
        assert await tokens.authenticate(signed("one")) == ANN
        assert await tokens.authenticate(signed("two")) == ANN
        assert not any(stranger.done() for stranger in strangers)
        provider.may_answer.set()
        answers = await asyncio.gather(*strangers, return_exceptions=True)
        assert {type(answer) for answer in answers} == {UnauthenticatedError}
        assert provider.asked == 2

    asyncio.run(scene())


# --- the document ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null, {}]}',
     b'{"keys": [' + b",".join([b"{}"] * (MAX_KEYS + 1)) + b"]}",
     b'{"keys": []}' + b" " * MAX_DOCUMENT_BYTES],
)  # fmt: skip
def test_a_document_without_keys_changes_nothing(
    tokens: Tokens, provider: IdentityProvider, clock: Clock, body: bytes
):
    assert tokens.principal(signed("one")) == ANN
    provider.body = body
    clock.now_s += KEYS_TTL_S
    assert tokens.principal(signed("one")) == ANN
    assert provider.asked == 2


def test_redirects_are_not_followed(tokens: Tokens, provider: IdentityProvider):
    provider.status = 302
    with pytest.raises(IdentityProviderUnavailableError):
        tokens.principal(signed("one"))
    assert provider.asked == 1


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(public_entry("k", bits=1024), id="too-short"),
        pytest.param(public_entry("k", use="enc"), id="for-encryption"),
        pytest.param(public_entry("k", alg="RS512"), id="other-algorithm"),
        pytest.param(public_entry("k", alg="HS256"), id="symmetric-algorithm"),
        pytest.param(public_entry("k", key_ops=["encrypt"]), id="other-operation"),
        pytest.param(public_entry("k", kid=None), id="nameless"),
        pytest.param(public_entry("k", n="!"), id="damaged"),
        pytest.param(public_entry("k", n=None), id="incomplete"),
        pytest.param({"kty": "oct", "kid": "k", "k": _encoded(b"k" * 32)}, id="symmetric"),
        pytest.param(
            {
                **jwt.algorithms.RSAAlgorithm.to_jwk(private_key("k"), as_dict=True),
                "kid": "k",
            },
            id="private",
        ),
        pytest.param(
            {
                **jwt.algorithms.ECAlgorithm.to_jwk(
                    ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True
                ),
                "kid": "k",
            },
            id="elliptic",
        ),
    ],
)
def test_a_key_that_is_not_meant_for_this_is_left_out(entry: dict):
    good = public_entry("good", use=None, alg=None, key_ops=["verify"])
    assert list(usable_keys(json.dumps({"keys": [entry, good]}).encode())) == ["good"]
    with pytest.raises(JwksError):
        usable_keys(json.dumps({"keys": [entry]}).encode())


def test_keys_may_come_from_a_file(tmp_path: Path):
    path = tmp_path / "the keys.json"
    path.write_text(json.dumps({"keys": [public_entry("one")]}))
    from_file = open_tokens(Settings(home=tmp_path / "home", jwt_jwks_url=path.as_uri()))
    assert from_file.principal(signed("one")) == ANN
    assert not (tmp_path / "home" / KEY_FILE).exists()
    gone = open_tokens(Settings(jwt_jwks_url=(tmp_path / "none").as_uri()))
    with pytest.raises(IdentityProviderUnavailableError):
        gone.principal(signed("one"))


@pytest.mark.parametrize(
    "url",
    ["", "keys.json", "/keys.json", "http://idp.example/keys", "ftp://idp.example/keys", "https://",
     "https://user:s3cret@idp.example/keys", "file://host/keys", "http://127.0.0.1.evil.example/k",
     "http://[::1/keys"],
)  # fmt: skip
def test_keys_come_only_from_where_they_can_be_trusted(url: str):
    with pytest.raises(ConfigurationError, match="MATIH_JWT_JWKS_URL") as caught:
        open_tokens(Settings(jwt_jwks_url=url))
    assert "s3cret" not in str(caught.value)


def test_a_runtime_has_one_kind_of_key():
    both = Settings(jwt_jwks_url="https://idp.example/keys", jwt_secret=SecretStr("k" * 32))
    with pytest.raises(ConfigurationError, match="unset one"):
        open_tokens(both)


def test_a_runtime_with_a_provider_makes_no_tokens(tokens: Tokens):
    with pytest.raises(ConfigurationError, match="identity provider"):
        tokens.issue(ANN, NOW, 60)
