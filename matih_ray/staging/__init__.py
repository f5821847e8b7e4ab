"""Staging: where a slice's batches wait between source and sink.

A provider allocates a session per slice; the session's handle is small, serialisable data that
another process can open. May import `model` and `errors`; Ray only in `object_store`. Staging is a
buffer, never the durable line: losing it means reading a slice again.
"""
