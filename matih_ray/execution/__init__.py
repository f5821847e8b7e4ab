"""Execution on Ray: planner actors, slice tasks, sink actors, failure policy, supervisor.

The only package that decides where work runs. May import `control` and below, and Ray.

How a run flows. A *planner actor* takes ownership of a run (a new epoch), makes or loads the plan,
and starts *slice tasks*. A slice task is a streaming generator: every batch it yields becomes an
object that the planner owns and forwards, by reference, to a *sink actor*, which writes files and
returns a receipt. The planner commits contiguous prefixes of receipts (`committer.py` holds the
commit order) and nobody else commits.

Why planner actors are shared by runs, and not one actor per run: an actor is an operating-system
process that costs about a second of CPU to start, which an incremental run that finds nothing
would pay every few minutes. A planner hosts many runs on threads; each run's state is durable, so
losing a planner costs its runs a relaunch, not their work.

Why rows pass through sink actors and are not written by the slice task itself: reading and writing
then overlap on two cores, a source connection is never held open by a slow warehouse, and the
process that holds source credentials is not the one that holds warehouse credentials.
"""
