"""Bearer tokens: JSON Web Tokens signed with HS256 (RFC 7519, RFC 7515).

One symmetric key, from the settings or from a file that is made on the first start. `iss`, `aud`
and `exp` must be there and right; `sub`, `tenant` and `roles` say who is asking. Roles that are not
ours are ignored, since an identity provider may put others beside them.
"""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from pydantic import SecretStr

from matih_ray.control.authorization import Principal, Role
from matih_ray.errors import ConfigurationError, UnauthenticatedError
from matih_ray.model.ids import TenantId
from matih_ray.settings import Settings
from matih_ray.state.files import sync_directory, write_new_file

ALGORITHM = "HS256"
# RFC 7518 §3.2: a key of at least the size of the hash.
MIN_KEY_BYTES = 32
# Clocks of machines that sign and verify may differ by this much.
LEEWAY_S = 30
# A real token has some hundred bytes; more is not worth decoding.
MAX_TOKEN_CHARS = 8192
KEY_FILE = "jwt.key"

_ROLES = {role.value: role for role in Role}


class Tokens:
    """Issues and verifies the tokens of one runtime."""

    def __init__(self, key: SecretStr, issuer: str, audience: str) -> None:
        if len(key.get_secret_value().encode()) < MIN_KEY_BYTES:
            raise ConfigurationError(
                f"MATIH_JWT_SECRET (or the key file) must have at least {MIN_KEY_BYTES} bytes",
                setting="jwt_secret",
            )
        self._key = key
        self._issuer = issuer
        self._audience = audience

    def issue(self, principal: Principal, now: datetime, lifetime_s: int) -> str:
        """A signed token for a principal, valid from now."""
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": now + timedelta(seconds=lifetime_s),
            "sub": principal.subject,
            "tenant": principal.tenant_id,
            "roles": sorted(role.value for role in principal.roles),
        }
        return jwt.encode(claims, self._key.get_secret_value(), algorithm=ALGORITHM)

    def principal(self, token: str) -> Principal:
        """Who a token speaks for.

        Raises:
            UnauthenticatedError: Not ours, expired, or without the claims that we need.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise UnauthenticatedError("the token is too long")
        try:
            claims = jwt.decode(
                token,
                self._key.get_secret_value(),
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the token has expired; get a new one") from None
        except jwt.InvalidTokenError as error:
            raise UnauthenticatedError(
                f"the token is not valid ({type(error).__name__}); get a new one"
            ) from None
        subject, tenant, roles = claims["sub"], claims.get("tenant"), claims.get("roles")
        names = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
        if not (subject and isinstance(tenant, str) and tenant and names == roles):
            raise UnauthenticatedError("the token needs `sub`, `tenant` and a list `roles`")
        known = frozenset(_ROLES[role] for role in names if role in _ROLES)
        return Principal(subject, TenantId(tenant), known)


def open_tokens(settings: Settings, *, create_key: bool = True) -> Tokens:
    """The tokens of this runtime; the key file is made if it may be and is not there.

    Raises:
        ConfigurationError: No key, a key that is too short, or an unreadable key file.
    """
    key = settings.jwt_secret or _key_of_file(settings.home / KEY_FILE, create=create_key)
    return Tokens(key, settings.jwt_issuer, settings.jwt_audience)


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
