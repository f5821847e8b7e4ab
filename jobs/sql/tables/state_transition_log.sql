CREATE TABLE IF NOT EXISTS polaris.matih_analytics.state_transition_log (
    transition_id STRING,
    entity_type STRING NOT NULL,
    entity_id STRING NOT NULL,
    tenant_id STRING NOT NULL,
    from_state STRING NOT NULL,
    to_state STRING NOT NULL,
    triggered_by STRING,
    trigger_reason STRING,
    metadata STRING,
    event_timestamp TIMESTAMP(6) NOT NULL
) PARTITIONED BY (day(event_timestamp));
