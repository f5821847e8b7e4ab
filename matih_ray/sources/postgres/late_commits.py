"""An upper bound that no open transaction can undercut.

The danger: an incremental run reads up to the greatest cursor value it sees, U. A transaction
that began earlier, and took its cursor value (`now()`, `nextval()`) then, commits afterwards a row
with a value below U. The next run starts at U and never sees it.

The rule rests on one assumption: **a transaction that begins after U was read writes values
greater than U.** That is true of `now()`, of sequences without a cache, of version counters kept
by the database. Then only transactions open at that moment matter:

1. Read U and the running transaction ids in *one* snapshot.
2. Those ids are transactions that have written something. Wait until each has ended (those of
   other databases do not count). Their rows are then visible to the reads that follow.
3. A transaction that has not written yet has no id but may already have fixed its `now()`:
   - `timestamptz`: PostgreSQL shows when each transaction began, and `now()` is exactly that. U is
     lowered below the oldest open one; nothing waits for mere readers, freshness lags them.
   - `timestamp`, `date`: the writer's time zone is unknown, so such transactions are waited for.
   - numbers and others: a value drawn before the transaction's first write cannot be seen by
     anybody, so they are not waited for. (`INSERT` draws and writes in one step.)
4. If waiting ends without success, temporal bounds are lowered below the oldest open transaction
   (12 hours more for types without zone, the widest offset west); other types are an
   `OpenTransactionError`, which is retried later.

Ties at the bound need nothing more: `<= U` reads all of them that are committed, and by the
assumption no more are written.

Where it does not hold, use `lateCommits=lookback`: clocks of applications (they run apart);
sequences with CACHE or values that an application draws ahead (Hibernate's pooled optimizer);
`date` and rounded timestamps, where a later transaction can write the same value again; sessions
that write `timestamp` in several time zones. Prepared transactions are waited for; when they began
is not recorded, so no bound is lowered below them. A standby shows neither who writes on the
primary nor who is about to: all writers of the primary, in whatever database, are waited for, and
the plan says that transactions which have not written yet are not seen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

from matih_ray.errors import OpenTransactionError
from matih_ray.sources.postgres.session import APPLICATION_NAME, Session

# Waits between looks grow from one to the other: short transactions end in milliseconds, and
# nobody minds half a second more for long ones.
FIRST_POLL_S = 0.01
MAX_POLL_S = 0.5

WITH_ZONE = "timestamp with time zone"
# How far below a transaction's start a bound must lie, per cursor type.
_BELOW_START = {
    WITH_ZONE: "{start} - interval '1 microsecond'",
    "timestamp without time zone": (
        "({start} AT TIME ZONE 'UTC') - interval '12 hours 1 microsecond'"
    ),
    "date": "(({start} AT TIME ZONE 'UTC') - interval '12 hours')::date - 1",
}


@dataclass(frozen=True)
class Greatest:
    """The greatest visible cursor value as text, and who was writing in the same snapshot.

    `running` are transaction ids. A standby does not list them; there, `horizon` is the first id
    that was not yet given out, and None elsewhere.
    """

    text: str
    running: tuple[int, ...]
    horizon: int | None = None


@dataclass(frozen=True)
class Bound:
    """An upper bound, as text of the cursor's type, and a note if it is not the greatest value."""

    upper: str
    note: str | None = None


@dataclass(frozen=True)
class _Open:
    """Transactions still open of those that matter.

    `unplaced` of the `writers` have no session here: they are prepared, or run on the primary of
    this standby.
    """

    writers: int
    unplaced: int
    others: int

    @property
    def count(self) -> int:
        return self.writers + self.others


def safe_bound(session: Session, cast_type: str, greatest: Greatest, wait_s: float) -> Bound:
    """The greatest value, or less, such that no transaction open now can commit below it.

    Args:
        session: A connection outside any transaction.
        cast_type: The cursor's type.
        greatest: What was seen.
        wait_s: Longest time to wait, in seconds.

    Raises:
        OpenTransactionError: They stay open and the type's values cannot be bounded by time.
    """
    by_time = cast_type in _BELOW_START and greatest.horizon is None
    others = _waited_for(session, cast_type) if by_time else []
    remaining = _wait(session, greatest, others, wait_s)
    if remaining.unplaced or (remaining.count and not by_time):
        raise _still_open(remaining, wait_s)
    if not by_time:
        return Bound(greatest.text)
    bound = Bound(greatest.text)
    if remaining.count or cast_type == WITH_ZONE:
        bound = _below_oldest(session, cast_type, greatest.text, others, wait_s)
    _wait_for_prepared(session, wait_s)
    return bound


def _wait(session: Session, greatest: Greatest, others: Sequence[str], wait_s: float) -> _Open:
    """Poll until the given transactions have ended or time is up."""
    if not greatest.running and not others and greatest.horizon is None:
        return _Open(0, 0, 0)
    statement = _REMAINING.format(
        running=sql.Literal(list(greatest.running)),
        horizon=sql.Literal(greatest.horizon),
        others=sql.Literal(list(others)),
    )
    deadline = time.monotonic() + wait_s
    poll_s = FIRST_POLL_S
    while True:
        remaining = _Open(*session.row(statement))
        left_s = deadline - time.monotonic()
        if remaining.count == 0 or left_s <= 0:
            return remaining
        time.sleep(min(poll_s, left_s))
        poll_s = min(poll_s * 1.5, MAX_POLL_S)


def _wait_for_prepared(session: Session, wait_s: float) -> None:
    """A transaction that wrote and was prepared since U was read has left all other lists."""
    prepared = tuple(int(row[0]) for row in session.rows(_PREPARED))
    remaining = _wait(session, Greatest("", prepared), [], wait_s)
    if remaining.count:
        raise _still_open(remaining, wait_s)


def _waited_for(session: Session, cast_type: str) -> list[str]:
    """Virtual ids of open transactions whose start cannot be seen or cannot be used."""
    hidden_only = sql.SQL("AND start IS NULL" if cast_type == WITH_ZONE else "")
    statement = sql.SQL("{} SELECT id FROM open WHERE TRUE {}").format(_OPEN, hidden_only)
    return [str(row[0]) for row in session.rows(statement)]


def _below_oldest(
    session: Session, cast_type: str, greatest: str, others: Sequence[str], wait_s: float
) -> Bound:
    below = sql.SQL(_BELOW_START[cast_type].replace("{start}", "min(start)"))
    statement = sql.SQL(
        "{open} SELECT count(*), count(*) FILTER (WHERE start IS NULL AND id = ANY({others})), "
        "least({greatest}::{type}, {below})::text, {below} < {greatest}::{type} FROM open"
    ).format(
        open=_OPEN,
        others=sql.SQL("{}::text[]").format(sql.Literal(list(others))),
        greatest=sql.Literal(greatest),
        type=sql.SQL(cast_type),
        below=below,
    )
    count, hidden, upper, lowered = session.row(statement)
    if hidden:
        raise _still_open(_Open(0, 0, int(hidden)), wait_s)
    if not lowered:
        return Bound(greatest)
    return Bound(
        str(upper),
        f"the upper bound is below {count} open transaction(s), the oldest of which began before "
        f"the newest rows were written; rows above {upper} are left to a later run",
    )


def _still_open(remaining: _Open, wait_s: float) -> OpenTransactionError:
    unplaced = f", {remaining.unplaced} of them prepared or remote," if remaining.unplaced else ""
    return OpenTransactionError(
        f"{remaining.count} transaction(s){unplaced} stayed open for {wait_s:g} s and may still "
        "commit rows below the cursor's upper bound; end them, raise openTransactionWaitS, use "
        "lateCommits=lookback, or, if other roles' sessions are hidden from this one, grant it "
        "pg_read_all_stats",
        transactions=remaining.count,
        unplaced=remaining.unplaced,
        waited_s=wait_s,
    )


# Open transactions of this database, whether they have written or not, with their start; NULL
# where this role may not see it. Background workers such as autovacuum have no user. Our own
# sessions are left out: they only read.
_OPEN = sql.SQL(
    """
    WITH open AS (
        SELECT l.virtualtransaction AS id, a.xact_start AS start
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
          AND a.datname = current_database() AND a.usesysid IS NOT NULL
          AND l.pid <> pg_backend_pid()
          AND (a.xact_start IS NOT NULL OR a.state IS NULL)
          AND NOT (a.usename = current_user AND a.application_name = {application})
    )
    """
).format(application=sql.Literal(APPLICATION_NAME))

_PREPARED = """
    SELECT x.id FROM txid_snapshot_xip(txid_current_snapshot()) AS x(id)
    JOIN pg_prepared_xacts p ON p.transaction::text::bigint = x.id % 4294967296
    WHERE p.database = current_database()
"""

# Locks and prepared transactions show the lower 32 bits of an id. On a standby, one transaction
# stands for all that are older than the horizon.
_REMAINING = sql.SQL(
    """
    WITH writers AS (
        SELECT a.pid
        FROM txid_snapshot_xip(txid_current_snapshot()) AS x(id)
        LEFT JOIN pg_locks l
          ON l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
         AND l.transactionid::text::bigint = x.id % 4294967296
        LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        LEFT JOIN pg_prepared_xacts p ON p.transaction::text::bigint = x.id % 4294967296
        WHERE x.id = ANY({running}::bigint[])
          AND coalesce(a.datname, p.database, current_database()) = current_database()
    )
    SELECT (SELECT count(*) FROM writers) + behind,
           (SELECT count(*) FROM writers WHERE pid IS NULL) + behind,
           (SELECT count(*) FROM pg_locks
            WHERE locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND granted
              AND virtualtransaction = ANY({others}::text[]))
    FROM (SELECT coalesce(txid_snapshot_xmin(txid_current_snapshot()) < {horizon}, false)::int)
         AS standby(behind)
    """
)
