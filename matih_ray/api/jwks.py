"""Public keys of an identity provider: a JSON Web Key Set (RFC 7517), fetched and kept for a while.

PyJWT has a client for this too. Ours differs where an attacker or an outage would be felt: a token
with a made-up `kid` asks again only once in a while, whether or not the last answer was a good one;
while the provider is away the last keys go on being used for a time; and requests whose key is
known never wait for a fetch that is under way.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from matih_ray.errors import (
    ConfigurationError,
    IdentityProviderUnavailableError,
    UnauthenticatedError,
)

ALGORITHM = "RS256"
# A key that the provider has withdrawn is trusted for at most this long.
KEYS_TTL_S = 300.0
# While the provider does not answer, its last keys are used for this long.
STALE_KEYS_S = 3600.0
# Tokens with unknown keys make us ask at most this often, whoever sends how many of them.
MIN_REFETCH_S = 10.0
FETCH_TIMEOUT_S = 5.0
# A real document has a few keys of some hundred bytes each.
MAX_DOCUMENT_BYTES = 256 * 1024
MAX_KEYS = 64
# NIST SP 800-131A: shorter RSA keys are no longer allowed.
MIN_KEY_BITS = 2048

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

log = structlog.get_logger(__name__)


class JwksError(Exception):
    """The document could not be fetched or holds no key that can be used; says why."""


@dataclass(frozen=True)
class _KeySet:
    """Keys by `kid`, and when they were fetched on the clock of their owner."""

    keys: Mapping[str, RSAPublicKey]
    fetched_at: float


class JwksKeys:
    """RSA keys by `kid`; safe for threads. Nothing is fetched before the first token."""

    algorithm = ALGORITHM

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = _fetcher(url)
        self._url = url
        self._clock = clock
        self._fetching = threading.Lock()
        self._last_attempt = float("-inf")
        self._known: _KeySet | None = None

    def cached(self, kid: str | None) -> RSAPublicKey | None:
        """The key if it is known and need not be asked for again now; never waits."""
        known, now = self._known, self._clock()
        if known is None or kid is None:
            return None
        age_s = now - known.fetched_at
        # a fetch that was just tried, or is under way, is not waited for
        trying = now - self._last_attempt < MIN_REFETCH_S
        usable = age_s < KEYS_TTL_S or (trying and age_s < STALE_KEYS_S)
        return known.keys.get(kid) if usable else None

    def key(self, kid: str | None) -> RSAPublicKey:
        """The key of that name; fetches the document if need be, which may take seconds.

        Raises:
            UnauthenticatedError: The provider has no such key.
            IdentityProviderUnavailableError: Its keys are not known and it does not answer.
        """
        if kid is None:
            raise UnauthenticatedError("the token does not name its key (`kid`)")
        with self._fetching:
            found = self.cached(kid)
            if found is not None:
                return found
            if self._clock() - self._last_attempt >= MIN_REFETCH_S:
                self._refetch()
            found = self.cached(kid)
        if found is not None:
            return found
        if self._known is None or self._clock() - self._known.fetched_at >= STALE_KEYS_S:
            raise IdentityProviderUnavailableError(
                f"the keys of {self._url} cannot be fetched, so no token can be verified; see the "
                "log, and check MATIH_JWT_JWKS_URL and the way to it"
            )
        raise UnauthenticatedError(
            "the token was signed with a key that the identity provider does not have; get a new "
            "one"
        )

    def _refetch(self) -> None:
        """Replace the keys; a failure is logged and leaves them as they are."""
        self._last_attempt = self._clock()
        try:
            keys = usable_keys(self._fetch())
        except JwksError as error:
            log.warning("jwks_not_fetched", url=self._url, reason=str(error))
            return
        self._known = _KeySet(keys, self._clock())


def usable_keys(document: bytes) -> dict[str, RSAPublicKey]:
    """The keys of a document that may verify RS256 signatures, by `kid`.

    Keys of another kind, for another use or algorithm, too short, nameless or private are left out.

    Raises:
        JwksError: It is no key set, or none of its keys can be used.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError):
        raise JwksError("not a JSON Web Key Set") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise JwksError(f"`keys` is no list of at most {MAX_KEYS}")
    found: dict[str, RSAPublicKey] = {}
    for entry in entries:
        if isinstance(entry, dict) and _is_meant_for_us(entry):
            key = _public_key(entry)
            if key is not None:
                found.setdefault(str(entry["kid"]), key)
    if not found:
        raise JwksError("no RSA signature key with a `kid` and at least 2048 bits")
    return found


def _is_meant_for_us(entry: dict[str, object]) -> bool:
    operations = entry.get("key_ops")
    return (
        entry.get("kty") == "RSA"
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", ALGORITHM) == ALGORITHM
        and (not isinstance(operations, list) or "verify" in operations)
        and isinstance(entry.get("kid"), str)
        and "d" not in entry
    )


def _public_key(entry: dict[str, object]) -> RSAPublicKey | None:
    try:
        key = jwt.PyJWK(entry, ALGORITHM).key
    except jwt.PyJWTError:
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= MIN_KEY_BITS else None


def _fetcher(url: str) -> Callable[[], bytes]:
    refused = ConfigurationError(
        "MATIH_JWT_JWKS_URL must be https://… without a password, or file:///…; over plain HTTP "
        "anybody on the way could give us keys",
        setting="jwt_jwks_url",
    )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise refused from None
    if parts.scheme == "file" and not parts.netloc:
        path = Path(unquote(parts.path))
        return lambda: _read(path)
    secure = parts.scheme == "https" and parts.hostname
    loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if "@" in parts.netloc or not (secure or loopback):
        raise refused
    return lambda: _get(url)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            document = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise JwksError(f"{path}: {error.strerror}") from None
    if len(document) > MAX_DOCUMENT_BYTES:
        raise _too_large()
    return document


def _get(url: str) -> bytes:
    """One request; redirects are not followed, since keys come from the given address only."""
    document = bytearray()
    try:
        with httpx.stream("GET", url, timeout=FETCH_TIMEOUT_S) as response:
            if response.status_code != 200:
                raise _wrong_status(response.status_code)
            for piece in response.iter_bytes():
                document += piece
                if len(document) > MAX_DOCUMENT_BYTES:
                    raise _too_large()
    except httpx.HTTPError as error:
        raise JwksError(type(error).__name__) from None
    return bytes(document)


def _wrong_status(status: int) -> JwksError:
    return JwksError(f"the answer has status {status}")


def _too_large() -> JwksError:
    return JwksError(f"the document has more than {MAX_DOCUMENT_BYTES} bytes")
