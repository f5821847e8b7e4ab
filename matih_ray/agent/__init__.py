"""The ingestion agent: a connection is set up by talking (seed 000).

`machine` is pure: a conversation and an event give the next conversation, what is said, and
effects. `reading`, `choosing` and `timing` understand messages by rules; no model is asked, so what
a user types leaves this process only as the use case it means. `effects` carries out what the
machine decided through `control`, in the user's own name. `dialogue` ties them together.

May import `control` and below. Why a machine with effects as values and not a script that calls
use cases as it goes: every path of a conversation is then tested without a server, a conversation
can be stored between two messages, and secrets pass through one place only.
"""
