"""Sources: one family of connectors per module or package.

A source lists units, plans slices, and reads a slice as Arrow record batches. May import `model`,
`errors` and the vendor's own client. Never Ray, never a sink: the same reader serves tasks,
previews and tests. Optional abilities are separate `Supports…` protocols, because a source that
does not have one must be able to say a safe "no" by simply not having it.
"""
