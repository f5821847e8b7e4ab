"""REST (`http.rest`) and GraphQL (`http.graphql`) APIs: streams of JSON records into Arrow.

A connector declares its streams; nothing is guessed from an API but the columns of a stream without
a `schema`, which come from a bounded sample. May import `sources.base`, `sources.documents`,
what all sources share of reaching hosts and APIs (`host_policy`, `guarded_http`, `rate_governor`,
`provider_services`, `read_ahead`, `slices`), `model`, `errors` and httpx.

    rest, graphql      the two endpoints: how a request is written
    endpoint           what both share: units, schema, plans, reading
    config             connectors as values, with all limits
    json_values        JSON, exactly: numbers keep their digits
    pagination         five ways of asking for the next page (Relay is one of them)
    planning, slices   ranges of pages, and of a cursor
    positions          a cursor's values as whole numbers
    client, auth, failures   requests: pace, retries, deadline, redirects, credentials, errors

Why not a connector framework: those that exist deliver records through float64 and hold the cursor
logic in the process that reads, while a plan here must know its upper bound before anybody reads.
Why credentials are put into requests by the transport: a request is logged and quoted in errors by
httpx, and what it does not hold cannot be shown.

Every page is asked for by its own request and held whole, so a page is read again when its answer
breaks off. Changes while pages are read move records between page numbers and offsets of most APIs;
plans say so in a note, since no client can prevent it.
"""

from matih_ray.sources.http.graphql import GraphqlSource
from matih_ray.sources.http.rest import RestSource

__all__ = ["GraphqlSource", "RestSource"]
