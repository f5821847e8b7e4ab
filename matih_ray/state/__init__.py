"""State: what must outlive processes. Endpoints, catalog, runs, checkpoints, credentials.

Two stores behind two ports: a relational *metadata store* (SQLAlchemy; SQLite by default,
PostgreSQL in production, Alembic migrations) and a *key-value store* (file, SQL or Redis) for
checkpoints and transient state. Credentials have a third port of their own, so that no query on
metadata can ever return one. May import `model`, `errors` and `settings`. Every method takes the
tenant first: there is no query without one (the supervisor's sweep is the named exception).

Open them with `factory.open_stores`, or with `factory.process_stores`, which a process shares.
Ports rather than an ORM session or a workflow engine: what is kept here is small, and what matters
is that each write is one compare-and-set that means the same on a laptop's SQLite file and on a
shared server, which the contract suites in `matih_ray.testing.contracts.state` hold.
"""
