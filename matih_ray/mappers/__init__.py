"""Mappers: source-shaped batches to batches of the canonical data model.

Pure functions, Arrow in and Arrow out, column by column and never row by row: a mapper is a table
from the columns of a model to *expressions* over the columns of a unit. The registry is keyed by
(endpoint family, unit), so nothing that runs a unit knows a vendor.

    registry       register_cdm_mapper, apply_cdm
    expressions    the few ways in which a column is made
    jira, confluence, onedrive    one family each

Why tables of expressions and not functions over batches: what a mapper reads can be listed, and a
test compares that with what the source declares. Mappers name raw columns and do not import
sources, whose drivers a task that only maps need not have. A family's module is found through the
plugin table (`registry.BUILT_INS`, or an entry point in `matih_ray.mappers`) and registers its
mappers when it is imported, in whichever process first needs it.

May import `model`, `registry` and `errors`.
"""

from matih_ray.mappers.registry import MapperFamily, apply_cdm, find_mapper, register_cdm_mapper

__all__ = ["MapperFamily", "apply_cdm", "find_mapper", "register_cdm_mapper"]
