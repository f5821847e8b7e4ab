"""Contract suites: what every implementation of a port must keep, as test classes to inherit.

A plugin author subclasses the suite, provides the fixture that builds the implementation, and
gets all tests. Our own built-ins are bound in `tests/contracts`.
"""
