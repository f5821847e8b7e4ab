CREATE TABLE IF NOT EXISTS polaris.matih_analytics.llm_operations_metrics (
    window_start TIMESTAMP(6) NOT NULL,
    window_end TIMESTAMP(6) NOT NULL,
    tenant_id STRING NOT NULL,
    provider STRING NOT NULL,
    model STRING NOT NULL,
    cache_hit_rate DOUBLE,
    avg_tokens_input DOUBLE,
    avg_tokens_output DOUBLE,
    total_requests BIGINT NOT NULL,
    total_cost_usd DOUBLE,
    avg_latency_ms DOUBLE,
    error_rate DOUBLE,
    event_timestamp TIMESTAMP(6) NOT NULL
) PARTITIONED BY (hour(window_start));
