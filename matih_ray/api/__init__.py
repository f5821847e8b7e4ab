"""HTTP: one app factory, authentication, problem+json, and thin routes over `control`.

May import `control` and below; never Ray, so that the whole API is tested in one process.
"""
