"""Which transactions a snapshot shows, by the rule of PostgreSQL's own snapshots.

`xmin:xmax:xip,…` is the text of `pg_current_snapshot()`: all below `xmin` have ended, none from
`xmax` on had begun, and of those between the listed ones were under way.
"""

from __future__ import annotations

from matih_ray.model.value import Value

_WRAP = 1 << 32


class SnapshotView(Value):
    """A snapshot as data. Transactions that commit from `until` on are not in it, whatever they
    are called, so it is needed no longer than the stream is before there."""

    xmin: int
    xmax: int
    running: tuple[int, ...] = ()
    until: int

    @classmethod
    def of(cls, text: str, until: int) -> SnapshotView:
        """Read PostgreSQL's text for a snapshot."""
        xmin, xmax, running = text.split(":")
        return cls(
            xmin=int(xmin),
            xmax=int(xmax),
            running=tuple(int(one) for one in running.split(",") if one),
            until=until,
        )

    def shows(self, xid: int, final_lsn: int) -> bool:
        """Whether the snapshot's rows hold what this transaction did.

        Args:
            xid: The transaction, as the stream says it: its lower 32 bits.
            final_lsn: Where it committed.
        """
        if final_lsn >= self.until:
            return False
        whole = self._whole(xid)
        return whole < self.xmin or (whole < self.xmax and whole not in self.running)

    def _whole(self, xid: int) -> int:
        """All 64 bits: the number that is nearest to the snapshot."""
        whole = (self.xmax & ~(_WRAP - 1)) | xid
        if whole > self.xmax + _WRAP // 2:
            return whole - _WRAP
        return whole + _WRAP if whole < self.xmax - _WRAP // 2 else whole
