"""The control plane as GraphQL: the same use cases, identity and errors as REST, another form.

Made of `control` alone, like the REST routes beside it; nothing here decides anything. Resolvers
are plain functions that run in a worker thread, and lists that belong to a page (the states of its
units) are loaded once for the whole page: a query's number of SQL statements does not depend on
how many units it shows.

Why not a GraphQL type made from every Pydantic model: a schema is a promise. Its text is committed
as `schema.graphql`, and a test refuses whatever would break a query that worked before.
"""

from matih_ray.api.graphql.execution import GraphqlAnswer, GraphqlRequest, execute

__all__ = ["GraphqlAnswer", "GraphqlRequest", "execute"]
