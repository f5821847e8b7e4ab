"""Use cases: what a caller can do, as functions over ports.

REST, GraphQL, CLI and agent call these and add nothing but their own form. May import everything
below (`planning`, `sources`, `sinks`, `staging`, `state`, `model`, `errors`) but never Ray:
launching a run is a port that `execution` fulfils, so that every rule here is tested without a
cluster.
"""
