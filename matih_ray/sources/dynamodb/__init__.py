"""DynamoDB (`nosql.dynamodb`): tables into Arrow by parallel scan, numbers exact.

May import `sources.base`, `sources.documents`, `sources.aws_failures`, `model`, `errors` and boto3.

    source      the endpoint: what the rest of the package is put together for
    config, session              clients
    types, catalog               what there is, and how each type arrives
    slices, incremental          segments of a scan, and plans of filtered ones

A slice is one segment of a parallel scan: DynamoDB itself divides the table by hash into as many
segments as the plan says, and the same division holds for as long as that number does.

Why boto3's low-level client and not its Table resource: the resource's numbers pass through a
decimal context that is not ours, and its sets and binaries through classes of its own.
"""

from matih_ray.sources.dynamodb.source import DynamoSource

__all__ = ["DynamoSource"]
