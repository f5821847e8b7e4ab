"""Planning: turns a unit, a checkpoint and a policy into a frozen plan.

Vendor-neutral arithmetic (ranges, windows) and the one function that asks a source to plan. May
import `sources`, `sinks`, `staging`, `state` and below; starts nothing, writes nothing.
"""
