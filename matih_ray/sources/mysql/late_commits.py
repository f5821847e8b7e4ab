"""An upper bound that no open transaction can undercut.

The danger: an incremental run reads up to the greatest cursor value it sees, U. A transaction that
began earlier took its cursor value (`NOW()`, AUTO_INCREMENT) then and commits afterwards a row with
a value that is not greater than U. The next run starts at U and never sees it.

The rule rests on one assumption: **a statement that begins after U was read writes values greater
than U.** MySQL's `NOW()` is the time of the statement, and AUTO_INCREMENT is drawn by it. So:

1. Read U. If the column is a time of whole seconds (or tenths, …), let one such unit pass: a row
   written within it could carry U's value once more.
2. Look at InnoDB's open transactions that have changed rows, or are running a statement and are not
   read-only. Wait until each of them has ended; their rows are visible to the reads that follow.
3. If waiting ends without success it is an `OpenTransactionError`, which is retried later.

Seeing other accounts' transactions needs the PROCESS privilege; without it the source says so.
Where the assumption does not hold, use `lateCommits=lookback`: clocks of applications, values drawn
ahead, `date` and `year` columns, AUTO_INCREMENT with several primaries, a statement that waits
for a table's metadata lock before its transaction exists, and on a replica, whose transactions are
applied after they were committed (the plan notes a server that is read-only). Tables of engines
without transactions need none of it.
"""

from __future__ import annotations

import time

import pymysql

from matih_ray.errors import OpenTransactionError, SourcePermissionError
from matih_ray.sources.mysql.catalog import Column
from matih_ray.sources.mysql.failures import ACCESS_DENIED_NEEDS_PRIVILEGE, error_number
from matih_ray.sources.mysql.session import Session

# InnoDB shows a copy of its transactions that it renews when it is older than 0.1 s (MySQL
# manual, "InnoDB INFORMATION_SCHEMA Transaction and Locking Information"), so looks are no closer.
POLL_S = 0.15

REPLICA_NOTE = (
    "this server is read-only: if it is a replica, transactions that its primary has not finished "
    "are not seen, and rows that they commit below the upper bound would be missed"
)

_CLOCK_TYPES = ("datetime", "timestamp")


def wait_for_writers(session: Session, column: Column, wait_s: float) -> None:
    """Return when no transaction is open that could still commit a value read as the greatest.

    Call it after the greatest value was read, with the longest time to wait in seconds.

    Raises:
        OpenTransactionError: One stays open longer.
        SourcePermissionError: The account may not see transactions.
    """
    time.sleep(max(POLL_S, _unit_s(column)))
    deadline = time.monotonic() + wait_s
    waiting_for = _writers(session)
    while waiting_for and time.monotonic() < deadline:
        time.sleep(POLL_S)
        waiting_for &= _writers(session)
    if waiting_for:
        raise OpenTransactionError(
            f"{len(waiting_for)} transaction(s) have stayed open for {wait_s:g} s and could commit "
            "rows below the upper bound; end them, wait longer with openTransactionWaitS, or use "
            "lateCommits=lookback",
            transactions=len(waiting_for),
        )


def is_read_only(session: Session) -> bool:
    """Whether the server refuses writes, as replicas do."""
    (read_only,) = session.row("SELECT @@GLOBAL.read_only")
    return read_only not in ("0", "OFF")


def _unit_s(column: Column) -> float:
    """The unit in which a time is kept: 1 for `datetime`, 0.001 for `datetime(3)`."""
    if column.base not in _CLOCK_TYPES:
        return 0.0
    digits = column.native_type.partition("(")[2].partition(")")[0]
    return float(10.0 ** -int(digits or 0))


def _writers(session: Session) -> set[str]:
    try:
        return {str(row[0]) for row in session.rows(_WRITERS)}
    except pymysql.Error as error:
        if error_number(error) != ACCESS_DENIED_NEEDS_PRIVILEGE:
            raise
        raise SourcePermissionError(
            "open transactions cannot be seen; grant the account PROCESS on *.*, or use "
            "lateCommits=lookback or ignore",
            number=ACCESS_DENIED_NEEDS_PRIVILEGE,
        ) from None


# A transaction's own id may change when it first writes; its connection and start do not. Prepared
# XA transactions have no connection, and have written.
_WRITERS = """
    SELECT CONCAT(trx_mysql_thread_id, ' ', trx_started, ' ',
                  IF(trx_mysql_thread_id = 0, trx_id, ''))
    FROM information_schema.INNODB_TRX
    WHERE trx_mysql_thread_id <> CONNECTION_ID()
      AND (trx_rows_modified > 0 OR (trx_query IS NOT NULL AND trx_is_read_only = 0))
"""
