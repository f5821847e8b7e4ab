"""The canonical data model (CDM): what rows look like whichever source they came from.

Two families: `cdm.work.*` (projects, items, users, …) and `cdm.doc.*` (spaces, items, revisions,
links). A model is a list of typed, described columns; every model begins with the same *envelope*
(`base`), which says what a row is, where it came from, in which version, and whether it is gone.

Declared as values and not as pydantic or ORM classes, because rows only ever exist as Arrow
columns: mappers make batches of a model's schema, sinks make tables of it, and docs/cdm.md repeats
it for people (a test compares). Identifiers are readable text (`work.item:<endpoint>:<source id>`)
and not hashes: a reference to another row can be made without looking that row up, and anybody can
see where it leads.

May import `model.ids` and pyarrow.
"""

from matih_ray.model.cdm.base import (
    ENVELOPE,
    CdmColumn,
    CdmModel,
    cdm_prefix,
    covers,
)
from matih_ray.model.cdm.doc import DOC_MODELS
from matih_ray.model.cdm.work import WORK_MODELS

CDM_MODELS: dict[str, CdmModel] = {model.model_id: model for model in (*WORK_MODELS, *DOC_MODELS)}

__all__ = ["CDM_MODELS", "ENVELOPE", "CdmColumn", "CdmModel", "cdm_prefix", "covers"]
