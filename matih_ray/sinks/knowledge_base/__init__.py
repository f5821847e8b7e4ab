"""The sink `kb`: what rows of the canonical data model mean, as nodes and edges; never the rows.

An issue becomes a node with its key, its title and the beginning of its description, and edges to
its project, its assignee, its parent; a comment, a worklog or a revision becomes nothing. Texts and
edges are cut at named limits (`model.knowledge`), so that what is kept is bounded by the number of
things, not by what is written in them.

Nodes live in the metadata store, where the control plane asks for them. Slice writers stage parts
there, unseen; a commit shows them and replaces the stream's marker in one transaction (`fencing`).

Why a sink, and not a step after a run: then the same plan, failures and commit order hold for it,
and it needs no second way to read what a run has written. Why the metadata store and no graph
database: the questions are a step, a short path and a search by words, for which two indexed tables
are enough; another store to run would not be.

    rules   which columns of a model make a node, and which its edges
    sink    the contract of `sinks.base`

May import `sinks.base`, `sinks.fencing`, `state` (for the metadata store), `settings`, `model` and
`errors`.
"""

from matih_ray.sinks.knowledge_base.sink import KnowledgeBaseSink

__all__ = ["KnowledgeBaseSink"]
