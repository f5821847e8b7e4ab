"""Real servers for demos and tests: private data directory, free loopback port, stopped by pid.

Every server is a small class with `start`, `stop` and the address it listens on, usable as a
context manager. Nothing here uses a server it did not start, and nothing is stopped by name.
"""
