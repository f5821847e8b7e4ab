"""Flink SQL over Arrow batches: the front end (`sql`), event-time operators, connectors, jobs.

Everything here is a function of batches: an operator takes a batch with the event time and the
watermark that each of its rows met, and returns batches. That makes results independent of how
input is cut into batches, which is what replaying after a failure needs. Why not one object for
each row, as a stream processor is usually written: in Python that costs a microsecond for each
call, and Arrow aggregates a row in tens of nanoseconds.

How a job goes on for ever: `pipeline` pushes what `connectors` read through the operators, `engine`
makes checkpoints (`checkpoints`) and commits, `submission` gives tenants' scripts their limits, and
`runtime` places jobs on a cluster.

May import `control`, `state`, `sources`, `sinks`, `model`, `settings` and `errors`; Ray in
`runtime` only.
"""
