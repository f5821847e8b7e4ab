"""Documents into Arrow: what MongoDB and DynamoDB share. Pure; knows neither of their clients.

A collection has no schema, so one is made of a bounded sample of its documents:

- Each top-level field of the sample is a column. Fields that held one type of value arrive as that
  type where Arrow has it; nested documents, arrays and fields of several types arrive as JSON text
  in the source's own exact dialect, which the column's `encoding` names.
- What the sample did not show is not lost: the column `_extra` holds a JSON object of all top-level
  fields of a document that have no column of their own, NULL when there are none.
- A field that is null and one that is missing are both NULL, except that in a JSON column an
  explicit null is the text `null`.
- A value that does not fit its column is an `UnrepresentableValueError`, never changed or dropped.
  `policy.encodings` sets such a column to `json`, which fits everything.

Why not struct columns: two documents of one collection may differ in any nested field, and an
Iceberg struct that is wrong for one document in a million fails the run; JSON text never does.

    columns   the sample's fields as columns, and which of them a policy reads
    batches   documents into record batches of about `TARGET_BATCH_BYTES`
    numbers   decimals of a declared precision, exactly or not at all
    exact_json  JSON text and its values, for all sources that read or write it

May import `sources.base`, `sources.batching`, `model`, `errors`, pyarrow and msgspec.
"""
