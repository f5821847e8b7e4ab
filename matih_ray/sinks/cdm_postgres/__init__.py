"""The sink `cdm.jdbc`: rows of the canonical data model become rows of PostgreSQL tables.

A table for each model, keyed by `cdm_id`, and two of our own beside them: what each stream has
committed (its marker), and which stage tables exist. Writers COPY a slice into an unlogged *stage
table* of its own; a commit runs `INSERT … ON CONFLICT (cdm_id) DO UPDATE` from the stages of its
receipts and replaces the marker in the same transaction, holding the stream's row, so that the
markers of a stream form one chain (`sinks.fencing`).

Why stage tables and not temporary ones, nor staged files: a temporary table is seen by one
connection only, and slices are written by other processes than the one that commits. Files would
need storage that all of them share, and the one committer would have to COPY everything at its end;
here slices are copied in parallel, and the commit is left with the INSERT, about half of the work.
Unlogged because a stage is read once: rows that a crash of the server empties are noticed by their
number and read again.

Why text (CSV) and not binary COPY: Arrow writes CSV of a whole batch in C++, exactly and with NULL
apart from empty, while psycopg2 and Arrow have no binary COPY between them.

An update is made only by a version that is not older, and only if it changes something: loading
anything again leaves every row as it is, `run_id` and `loaded_at` included.

    config      connection string, schema, table prefix; the operator's own database
    session     connections, and psycopg2's errors as ours
    columns     types, and batches as CSV
    tables      the DDL: idempotent, and only ever adding
    statements  the upsert
    writer, commit, sink   the contract of `sinks.base`

May import `sinks.base`, `sinks.fencing`, `sources.base` (for `EndpointSpec`), `settings`, `model`
and `errors`.
"""

from matih_ray.sinks.cdm_postgres.sink import CdmPostgresSink

__all__ = ["CdmPostgresSink"]
