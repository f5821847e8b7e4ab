"""Secrets between the message that holds them and the connector that needs them.

They are held apart from sessions: what is stored of a session can hold none of them. As soon as the
connector is stored they are dropped; what stays until the session ends is a keyed digest of each,
so that an echo of it can be redacted.

Where sessions live in one process, so do their secrets, encrypted with a key that the process made
and never shows; a dead process leaves nothing behind. Where sessions survive their process, secrets
are in the credential store, under a name of the session's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cryptography.fernet import Fernet
from pydantic import SecretStr

from matih_ray.agent.redaction import Echo
from matih_ray.agent.sessions import SessionKey
from matih_ray.errors import NotFoundError
from matih_ray.state.base import CredentialStore

# Secrets given in one conversation, corrections included; older ones are forgotten.
MAX_ECHOES = 32
# What the entries of sessions are called in the credential store.
PREFIX = "agent-session-"
_FIELD = "secret:"


@dataclass(frozen=True)
class Contents:
    """What is known of a session's secrets: those that are held, and digests of all."""

    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    echoes: tuple[Echo, ...] = ()
    key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    def keeping(self, secrets: Mapping[str, SecretStr]) -> Contents:
        """With more secrets, in place of those of the same names."""
        values = (secret.get_secret_value() for secret in secrets.values())
        return replace(self.noting(values), secrets={**self.secrets, **secrets})

    def noting(self, secrets: Iterable[str]) -> Contents:
        """Recognising these from now on, without holding them."""
        new = tuple(Echo.of(secret, self.key) for secret in secrets)
        known = tuple(dict.fromkeys((*self.echoes, *new)))
        return replace(self, echoes=known[-MAX_ECHOES:])

    def recognises(self, word: str) -> bool:
        """Whether a word is one of these secrets."""
        return any(echo.is_of(word, self.key) for echo in self.echoes)

    def dropped(self) -> Contents:
        """Without the secrets; their digests stay."""
        return replace(self, secrets={})

    def to_texts(self) -> dict[str, str]:
        """As a credential store takes it."""
        held = {_FIELD + name: value.get_secret_value() for name, value in self.secrets.items()}
        echoes = [[echo.digest.hex(), echo.chars, echo.total] for echo in self.echoes]
        return {**held, "echoes": json.dumps(echoes), "key": self.key.hex()}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Contents:
        """The inverse of `to_texts`."""
        held = {
            name.removeprefix(_FIELD): SecretStr(value)
            for name, value in texts.items()
            if name.startswith(_FIELD)
        }
        echoes = (Echo(bytes.fromhex(d), c, t) for d, c, t in json.loads(texts["echoes"]))
        return cls(held, tuple(echoes), bytes.fromhex(texts["key"]))


class Vault(Protocol):
    """Contents by session."""

    async def open(self, session: SessionKey) -> Contents:
        """What is known; nothing if nothing was saved."""

    async def save(self, session: SessionKey, contents: Contents) -> None: ...

    async def forget(self, session: SessionKey) -> None:
        """The session is over: keep nothing of it."""


class MemoryVault:
    """In this process, encrypted."""

    def __init__(self) -> None:
        self._cipher = Fernet(Fernet.generate_key())
        self._sealed: dict[SessionKey, bytes] = {}

    async def open(self, session: SessionKey) -> Contents:
        """See `Vault`."""
        sealed = self._sealed.get(session)
        if sealed is None:
            return Contents()
        return Contents.from_texts(json.loads(self._cipher.decrypt(sealed)))

    async def save(self, session: SessionKey, contents: Contents) -> None:
        """See `Vault`."""
        plain = json.dumps(contents.to_texts()).encode()
        self._sealed[session] = self._cipher.encrypt(plain)

    async def forget(self, session: SessionKey) -> None:
        """See `Vault`."""
        self._sealed.pop(session, None)


class StoredVault:
    """In the credential store, which all replicas share and which encrypts."""

    def __init__(self, credentials: CredentialStore) -> None:
        self._credentials = credentials

    async def open(self, session: SessionKey) -> Contents:
        """See `Vault`."""
        name = PREFIX + session.session_id
        try:
            texts = await asyncio.to_thread(self._credentials.get, session.tenant_id, name)
        except NotFoundError:
            return Contents()
        return Contents.from_texts(texts)

    async def save(self, session: SessionKey, contents: Contents) -> None:
        """See `Vault`."""
        name = PREFIX + session.session_id
        await asyncio.to_thread(self._credentials.put, session.tenant_id, name, contents.to_texts())

    async def forget(self, session: SessionKey) -> None:
        """See `Vault`."""
        name = PREFIX + session.session_id
        await asyncio.to_thread(self._credentials.delete, session.tenant_id, name)
