"""Bearer tokens: JSON Web Tokens signed with HS256 or RS256 (RFC 7519, RFC 7515).

A runtime knows exactly one algorithm. Without an identity provider it is HS256, with one symmetric
key from the settings or from a file that is made on the first start; with one it is RS256, with
the provider's public keys. What a token's header says about its algorithm is never believed, so a
public key cannot be passed off as a shared secret.

`iss`, `aud` and `exp` must be there and right, `nbf` and `iat` right if they are there; `sub`,
`tenant` and `roles` say who is asking. Roles that are not ours are ignored, since an identity
provider may put others beside them.
"""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from anyio import CapacityLimiter, to_thread
from pydantic import SecretStr

from matih_ray.api.jwks import JwksKeys
from matih_ray.control.authorization import Principal, Role
from matih_ray.errors import ConfigurationError, UnauthenticatedError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.state.files import sync_directory, write_new_file

# RFC 7518 §3.2: a key of at least the size of the hash.
MIN_KEY_BYTES = 32
# Clocks of machines that sign and verify may differ by this much.
LEEWAY_S = 30
# A real token has some hundred bytes; more is not worth decoding.
MAX_TOKEN_CHARS = 8192
KEY_FILE = "jwt.key"

_ROLES = {role.value: role for role in Role}


class SharedKey:
    """The one symmetric key of a runtime without an identity provider."""

    algorithm = "HS256"

    def __init__(self, key: SecretStr) -> None:
        if len(key.get_secret_value().encode()) < MIN_KEY_BYTES:
            raise ConfigurationError(
                f"MATIH_JWT_SECRET (or the key file) must have at least {MIN_KEY_BYTES} bytes",
                setting="jwt_secret",
            )
        self._key = key

    def cached(self, kid: str | None) -> str:
        """The key, whatever the token calls it."""
        return self.key(kid)

    def key(self, kid: str | None) -> str:  # noqa: ARG002 - as of keys that have names
        """The key, whatever the token calls it."""
        return self._key.get_secret_value()


class Tokens:
    """Issues and verifies the tokens of one runtime."""

    def __init__(self, keys: SharedKey | JwksKeys, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        # one fetch is enough for all who wait for it, and they must not hold threads meanwhile
        self._fetching = CapacityLimiter(1)

    def issue(self, principal: Principal, now: datetime, lifetime_s: int) -> str:
        """A signed token for a principal, valid from now.

        Raises:
            ConfigurationError: The runtime's tokens come from an identity provider.
        """
        if not isinstance(self._keys, SharedKey):
            raise ConfigurationError(
                "tokens of this runtime are made by the identity provider of MATIH_JWT_JWKS_URL",
                setting="jwt_jwks_url",
            )
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": now + timedelta(seconds=lifetime_s),
            "sub": principal.subject,
            "tenant": principal.tenant_id,
            "roles": sorted(role.value for role in principal.roles),
        }
        return jwt.encode(claims, self._keys.key(None), algorithm=self._keys.algorithm)

    def principal(self, token: str) -> Principal:
        """Who a token speaks for. May wait for the provider's keys; see `authenticate`.

        Raises:
            UnauthenticatedError: Not ours, expired, or without the claims that we need.
            IdentityProviderUnavailableError: The keys to verify it with cannot be had.
        """
        return self._verified(token, self._keys.key(self._key_name(token)))

    async def authenticate(self, token: str) -> Principal:
        """`principal` for an event loop, which does not stand still while keys are fetched.

        Raises:
            UnauthenticatedError: Not ours, expired, or without the claims that we need.
            IdentityProviderUnavailableError: The keys to verify it with cannot be had.
        """
        kid = self._key_name(token)
        key = self._keys.cached(kid)
        if key is None:
            key = await to_thread.run_sync(self._keys.key, kid, limiter=self._fetching)
        return self._verified(token, key)

    def _key_name(self, token: str) -> str | None:
        """The `kid` of a token that could be ours; nothing is fetched for any other."""
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthenticatedError("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise _invalid(error) from None
        if header.get("alg") != self._keys.algorithm:
            raise UnauthenticatedError(
                f"tokens of this runtime are signed with {self._keys.algorithm}; get another one"
            )
        kid: str | None = header.get("kid")
        return kid

    def _verified(self, token: str, key: Any) -> Principal:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[self._keys.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the token has expired; get a new one") from None
        except jwt.InvalidTokenError as error:
            raise _invalid(error) from None
        subject, tenant, roles = claims["sub"], claims.get("tenant"), claims.get("roles")
        names = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
        if not (subject and isinstance(tenant, str) and tenant and names == roles):
            raise UnauthenticatedError("the token needs `sub`, `tenant` and a list `roles`")
        known = frozenset(_ROLES[role] for role in names if role in _ROLES)
        return Principal(subject, TenantId(tenant), known)


def open_tokens(settings: Settings, *, create_key: bool = True) -> Tokens:
    """The tokens of this runtime; the key file is made if it may be and is needed.

    Raises:
        ConfigurationError: No key, a key that is too short, an unreadable key file, an address of
            keys that cannot be trusted, or both kinds of keys.
    """
    keys: SharedKey | JwksKeys
    if settings.jwt_jwks_url is not None:
        if settings.jwt_secret is not None:
            raise ConfigurationError(
                "MATIH_JWT_SECRET and MATIH_JWT_JWKS_URL are both set; tokens are signed with one "
                "or the other, unset one of them",
                setting="jwt_jwks_url",
            )
        keys = JwksKeys(settings.jwt_jwks_url)
    else:
        secret = settings.jwt_secret or _key_of_file(settings.home / KEY_FILE, create=create_key)
        keys = SharedKey(secret)
    return Tokens(keys, settings.jwt_issuer, settings.jwt_audience)


def _invalid(error: jwt.InvalidTokenError) -> UnauthenticatedError:
    return UnauthenticatedError(f"the token is not valid ({type(error).__name__}); get a new one")


def _key_of_file(path: Path, *, create: bool) -> SecretStr:
    try:
        if create and not path.exists():
            _make_key_file(path)
        return SecretStr(path.read_text("ascii").strip())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no key file {path}; start the runtime once, or set MATIH_HOME to its "
            "directory, or MATIH_JWT_SECRET",
            path=str(path),
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot use the key file {path}: {type(error).__name__}; check its permissions or "
            "set MATIH_JWT_SECRET",
            path=str(path),
        ) from None


def _make_key_file(path: Path) -> None:
    """Create the key file whole and once, whichever replicas start at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    write_new_file(draft, secrets.token_urlsafe(48).encode() + b"\n")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    sync_directory(path.parent)
