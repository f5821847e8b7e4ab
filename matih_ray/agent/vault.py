"""Secrets between the message that holds them and the connector that needs them.

They are held apart from sessions, encrypted with a key that this process made and never shows:
what is stored of a session can hold none of them, and a dead process leaves nothing behind. As soon
as the connector is stored they are dropped; what stays until the session ends is a keyed digest of
each, so that an echo of it can be redacted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from cryptography.fernet import Fernet
from pydantic import SecretStr

from matih_ray.agent.redaction import Echo

# Secrets given in one conversation, corrections included; older ones are forgotten.
MAX_ECHOES = 32


class Vault:
    """Held secrets by session."""

    def __init__(self) -> None:
        self._cipher = Fernet(Fernet.generate_key())
        self._held: dict[str, bytes] = {}
        self._echoes: dict[str, tuple[Echo, ...]] = {}
        self.key = os.urandom(32)

    def keep(self, session_id: str, secrets: Mapping[str, SecretStr]) -> None:
        """Hold more secrets, in place of those of the same names."""
        plain = {n: s.get_secret_value() for n, s in {**self.held(session_id), **secrets}.items()}
        self._held[session_id] = self._cipher.encrypt(json.dumps(plain).encode())
        self.note(session_id, (s.get_secret_value() for s in secrets.values()))

    def note(self, session_id: str, secrets: Iterable[str]) -> None:
        """Recognise these from now on, without holding them."""
        new = tuple(Echo.of(secret, self.key) for secret in secrets)
        known = tuple(dict.fromkeys((*self.echoes(session_id), *new)))
        self._echoes[session_id] = known[-MAX_ECHOES:]

    def held(self, session_id: str) -> dict[str, SecretStr]:
        """Secrets by field name."""
        sealed = self._held.get(session_id)
        if sealed is None:
            return {}
        opened = json.loads(self._cipher.decrypt(sealed))
        return {name: SecretStr(value) for name, value in opened.items()}

    def echoes(self, session_id: str) -> tuple[Echo, ...]:
        """Digests of every secret that was given."""
        return self._echoes.get(session_id, ())

    def drop(self, session_id: str) -> None:
        """Forget the secrets; their digests stay until the session ends."""
        self._held.pop(session_id, None)

    def forget(self, session_id: str) -> None:
        """The session is over: keep nothing of it."""
        self._held.pop(session_id, None)
        self._echoes.pop(session_id, None)
