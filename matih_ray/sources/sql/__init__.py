"""Tables read through a vendor's SQL driver, by ranges of a key or of a cursor.

For warehouses and databases that have no fast path of their own here: planning, slices, cursor
rules and checks against change are written once, in this package; a vendor adds a `Dialect` (names,
literals, types), a `SqlSession` (its driver) and its error table. May import `model`, `errors` and
`sources.base` with its neighbours, no driver.

    dialect             what a vendor adds
    source              the endpoint that a vendor completes
    names, table, columns       unit ids; one table; which columns are read, and how
    bounds, slices      bounds as text; a slice as data and as SQL
    probing             what is asked of a table while planning
    full, incremental   plans
    row_pages           what drivers give, in batches of a good size

Why not SQLAlchemy's dialects: they give Python objects row by row, and their types do not say
whether a value survives. Why PostgreSQL and MySQL do not use it: they have faster and stricter ways
(COPY, ctid pages, snapshots, open transactions) that no other driver offers.
"""
