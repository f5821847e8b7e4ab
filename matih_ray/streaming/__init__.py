"""Flink SQL over Arrow batches: the front end (`sql`), event-time operators, connectors, jobs.

Everything here is a function of batches: an operator takes a batch with the event time and the
watermark that each of its rows met, and returns batches. That makes results independent of how
input is cut into batches, which is what replaying after a failure needs. Why not one object for
each row, as a stream processor is usually written: in Python that costs a microsecond for each
call, and Arrow aggregates a row in tens of nanoseconds.

How a job goes on for ever: `pipeline` pushes what `connectors` read through `steps`, `engine` makes
checkpoints (`checkpoints`) and commits, `submission` gives tenants' scripts their limits, `owner`
works on one job, and `runtime` places jobs on a cluster. A query of a session is a pipeline without
checkpoints (`queries`), whose rows are kept for whoever asked (`results`).

How a job of several processes works: the plan is cut below its windows. N source tasks (`tasks`)
read a share of the partitions each, aggregate what they read and cut it by key groups
(`key_groups`); N window tasks merge and fire; one committer, the engine, writes what fires.
`parallel` lets all of them work in turns that it begins together, so that a checkpoint is a turn
after which nothing is under way. To the engine it is a pipeline like the one in its own process,
and what it saves (`rescaling`) is what that one would save: a job may go on with any number of
tasks. Parallelism 1 has no tasks.

What windows have merged is in memory or in files (`backends`).

What a plan's rows and changes become, rows to append or versions of a key, is said by `output`.
What a job leaves out, because it is late or cannot be read, are rows too (`rejects`), committed by
the same checkpoint (`side_sink`).

May import `control`, `state`, `sources`, `sinks`, `model`, `settings`, `kernels` and `errors`; Ray
in `runtime` only.
"""
