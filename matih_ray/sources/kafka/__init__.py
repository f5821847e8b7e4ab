"""Apache Kafka (`stream.kafka`): topics into Arrow, message by message, exactly.

Works with every broker that librdkafka speaks to. May import `sources.base`, `sources.batching`,
`sources.probe`, `sources.documents`, the JSON of `sources.http`, `model`, `errors` and
confluent-kafka; nothing else knows that confluent-kafka exists.

    source      the endpoint: what the rest of the package is put together for
    config, session, failures    connecting and errors
    catalog, sampling            which topics there are, and what their messages look like
    columns, decoding, fields    a message as columns: the envelope, and the fields of a JSON value
    slices, planning             offsets of one partition, and the cursor over all of them
    reading                      the messages of a slice

A partition is a log: an offset never comes to mean another message. So a slice `[start, end)` can
be read again, and the end is fixed when a run is planned: the last stable offset, below which no
transaction is open. A checkpoint holds the next offset of every partition, and the topic's id,
because a topic that was deleted and made again has the same name and other messages.

Why partitions are assigned and not subscribed to: consumer groups move partitions about while
others read, and keep offsets that our sinks cannot commit together with the rows.
"""

from matih_ray.sources.kafka.source import KafkaSource

__all__ = ["KafkaSource"]
