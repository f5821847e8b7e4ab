"""Alembic revisions of the metadata store's tables, run by `matih_ray.state.migrate`.

After a change of `tables.py`, add the revision beside the others and set `HEAD` to it; tests hold
that the newest revision is `HEAD` and that the revisions make exactly the tables of `tables.py`, on
SQLite and on PostgreSQL. Revisions only ever add: software of the previous version must be able to
work on the upgraded tables while a cluster is rolled over.
"""

# Known here so that opening an up-to-date store needs no Alembic.
HEAD = "0007"
# Not `alembic_version`: the database may be shared with other software that uses Alembic.
VERSION_TABLE = "matih_alembic_version"
