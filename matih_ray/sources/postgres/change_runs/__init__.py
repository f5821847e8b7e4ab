"""Runs by a table's log: run mode `cdc`.

The first run reads the rows that are there, in parallel slices of one held snapshot. Every later
one reads the log from where the last one ended up to a position that is fixed when it is planned,
in slices that are ranges of it: `lower <= commit < upper`, so that each transaction is in one of
them, and whole. May import `changes` and the rest of `sources.postgres`.

    position    where a run begins, as checkpoints keep it; slices as data. Pure
    rows        the columns beside the table's own. Pure
    preparing   slot and publication: made, looked at, confirmed, dropped
    plans       slices of rows and of the log; the snapshot that the former are read in
    reading     one slice of the log

How nothing is lost and nothing comes twice: the slot is there before the snapshot is taken; the
snapshot's list of transactions is in the checkpoint that its rows are committed with, and what it
shows is left out of the log. The slot is confirmed when checkpoints are durable, so a slice can be
read again, by whomever, until then.

Why the first run reads no log: its end would be fixed before the snapshot is taken, which shows
all of it. Why it commits once: its rows are of one moment only while the snapshot is held.
"""
