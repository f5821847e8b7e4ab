"""HTTP: one app factory, authentication, problem+json, and thin routes over `control`.

May import `control` and below; never Ray, so that the whole API is tested in one process. Routes
hold no rule: they turn a request into the arguments of one use case and its value into JSON.

Authentication and the size limit are ASGI middleware around the whole application rather than
dependencies of each route: a route that forgets its dependency would be open, and a dependency runs
only after the body was read.
"""
