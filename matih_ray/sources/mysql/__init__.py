"""MySQL and MariaDB (`jdbc.mysql`): tables into Arrow, exactly, as rows stream in.

Tested against MariaDB 10.11; written for MySQL 5.7 and newer as well, of which there was none to
test with. May import `sources.base`, `model`, `errors` and PyMySQL; nothing else knows that PyMySQL
exists.

    source      the endpoint: what the rest of the package is put together for
    config, session, failures       connecting, settings of a session, errors
    names, catalog, types, columns  what there is, and how each type arrives (the table of types)
    slices, cutting, full           a slice as data and as SQL; plans of full runs
    cursor_scan, incremental, late_commits   plans of incremental runs
    decoding                        rows: the server's text into Arrow

Why PyMySQL: it is pure Python under a permissive licence, hands over the server's own text without
making Python objects of it, and reads 250,000 rows of eight columns a second and core, row by row,
with memory for one row; with decoding 150,000, in 110 MB (measured with MariaDB on loopback).
mysqlclient has no wheels for Linux, so that installing it needs a compiler and headers; the wheel
of MySQL's own connector came without its C extension. Why the server's text and not typed values:
zero dates, times above 24 hours and decimals of 65 digits have no Python type that keeps them.
"""

from matih_ray.sources.mysql.source import MySqlSource

__all__ = ["MySqlSource"]
