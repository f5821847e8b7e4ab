"""Sinks: where batches become durable.

A sink prepares a target, writes slices to it invisibly, and makes receipts visible in one atomic
commit that carries a marker. May import `model` and `errors` and the vendor's own client; never
Ray, never a source. Commit is separate from write because many workers write and exactly one
commits; and the marker lives in the sink, not in our state store, because only then can "did my
commit happen?" be answered after any crash.
"""
