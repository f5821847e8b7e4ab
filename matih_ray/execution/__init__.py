"""Execution on Ray: planner actors, slice tasks, sink actors, failure policy.

The only package that decides where work runs. May import `control` and below, and Ray.
"""
