"""Changes of one PostgreSQL table: what is there, then every transaction, with no gap between.

Logical decoding by `pgoutput`, protocol version 1, as PostgreSQL 12 and newer has it built in. May
import the rest of `sources.postgres`, `model` and `errors`.

    messages       the plugin's messages, but for rows, parsed. Pure
    tuples         the rows of many messages at once, as columns of texts. Pure
    visibility     which transactions a snapshot shows. Pure
    transactions   messages into rows and their kinds, transactions counted. Pure
    prerequisites  what server, table and publication must be like, with a remedy for each
    slots          slots: made, looked at, compared with a position
    replication    the connection that messages come from and positions are confirmed on
    snapshot       the rows that were there when it all began
    parallel       several COPYs of it at once

How nothing is lost and nothing comes twice: the slot is there before the snapshot is taken, so the
stream holds whatever the snapshot does not show; and of what it does show, the stream's part is
left out, transaction by transaction, by the snapshot's own list. Why not the snapshot that
`CREATE_REPLICATION_SLOT` exports: it ends with its connection, so a process that dies meanwhile
would have to drop the slot, and one that finds a slot could not begin at all.

Why values are decoded from text, as by the full reader: a value arrives the same, whether it was
there before or comes by the stream. Why rows of many messages are read a column at a time, by numpy
and Arrow: an object for each value took three quarters of a reader's time. Why psycopg2: it is the
driver of the rest and has the replication protocol, which psycopg 3 has not.
"""
