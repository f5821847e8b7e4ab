"""The connection that changes come on.

Nothing is confirmed but by `confirm`: psycopg2 would answer a server that asks for a sign of life
with a position of its own making, ahead of what is durable here. So the server is told not to ask,
and notices a dead peer by TCP.
"""

from __future__ import annotations

import select
import time
from itertools import islice
from typing import Any

import psycopg2
from psycopg2.extensions import quote_ident
from psycopg2.extras import REPLICATION_LOGICAL, LogicalReplicationConnection

from matih_ray.errors import SourceUnavailableError
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.postgres.changes.messages import lsn_text
from matih_ray.sources.postgres.config import LoginConfig
from matih_ray.sources.postgres.failures import mapped_errors, typed
from matih_ray.sources.postgres.session import TEXT_OUTPUT, address_of, connect

# The server frees a slot as soon as it sees that its last reader's connection has ended.
FREE_WITHIN_S = 15.0
_LOOK_AGAIN_S = 0.2
# Messages that are returned at once; one alone may be larger.
READ_BYTES = 8 << 20
# Longer than any job runs: the client tells nothing on its own.
_NEVER_S = 10**9
_IN_USE = "55006"
_QUIET = (
    "SET wal_sender_timeout = 0; SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; "
    "SET tcp_keepalives_count = 3;"
)


class ChangeStream:
    """One slot being read. Not thread-safe."""

    def __init__(
        self,
        config: LoginConfig,
        password: str | None,
        policy: HostPolicy,
        *,
        slot: str,
        publication: str,
        position: int,
    ) -> None:
        """Connect and ask for all that commits from `position` on.

        Raises:
            SourceUnavailableError: Another reader has the slot, or the server cannot be reached.
            SourceError: The server refuses.
        """
        self._doing = f"reading changes from slot {slot} of {address_of(config)}"
        deadline = time.monotonic() + FREE_WITHIN_S
        while True:
            self._connection = connect(config, password, policy, LogicalReplicationConnection)
            try:
                self._cursor = self._started(slot, publication, position)
            except psycopg2.Error as error:
                self._connection.close()
                if error.pgcode != _IN_USE:
                    raise typed(error, self._doing) from None
                if time.monotonic() > deadline:
                    raise SourceUnavailableError(
                        f"{self._doing}: another reader has it; give each job a 'slot.name' of "
                        "its own",
                        slot=slot,
                    ) from None
            else:
                return
            time.sleep(_LOOK_AGAIN_S)

    def read(self) -> bytes | None:
        """The next message, None if none has come; see `read_many`."""
        return next(iter(self.read_many(1)), None)

    def read_many(self, most: int) -> list[bytes]:
        """The next messages as far as they have come, so many at most; none if none has.

        Raises:
            SourceError: The connection was lost, or the server gave up.
        """
        found: list[bytes] = []
        left = READ_BYTES
        try:
            for message in islice(iter(self._cursor.read_message, None), most):
                payload = message.payload
                found.append(payload)
                left -= len(payload)
                if left < 0:
                    break
        except psycopg2.Error as error:
            raise typed(error, self._doing) from None
        return found

    @property
    def told(self) -> int:
        """The position up to which the server has looked, as of the last message or keepalive."""
        return int(self._cursor.wal_end)

    def wait(self, timeout_s: float) -> None:
        """Until something comes, or that long."""
        select.select([self._connection], [], [], max(0.0, timeout_s))

    def confirm(self, position: int) -> None:
        """What is before this position is not needed any more.

        Raises:
            SourceError: The connection was lost.
        """
        with mapped_errors(self._doing):
            self._cursor.send_feedback(flush_lsn=position, force=True)

    def close(self) -> None:
        """Let go of the slot. Safe to call twice."""
        self._connection.close()

    def _started(self, slot: str, publication: str, position: int) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(TEXT_OUTPUT)
        cursor.execute(_QUIET)
        options = {
            "proto_version": "1",
            "publication_names": quote_ident(publication, self._connection),
        }
        cursor.start_replication(
            slot_name=slot,
            slot_type=REPLICATION_LOGICAL,
            start_lsn=lsn_text(position),
            options=options,
            decode=False,
            status_interval=_NEVER_S,
        )
        return cursor
