"""Frozen values that every layer shares: units, policies, plans, checkpoints, receipts, runs.

No I/O, no Ray, no vendor names. May import `errors` only. Values are pydantic models rather than
plain dataclasses because each of them crosses a JSON boundary (REST, the state store, Iceberg
properties): one definition then gives validation, camelCase JSON and refusal of unknown keys.
"""
