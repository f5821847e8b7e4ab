CREATE TABLE IF NOT EXISTS polaris.matih_analytics.agent_performance_metrics (
    window_start TIMESTAMP(6) NOT NULL,
    window_end TIMESTAMP(6) NOT NULL,
    tenant_id STRING NOT NULL,
    agent_id STRING NOT NULL,
    agent_name STRING,
    success_rate DOUBLE,
    avg_latency_ms DOUBLE,
    p50_latency_ms BIGINT,
    p95_latency_ms BIGINT,
    p99_latency_ms BIGINT,
    total_traces BIGINT NOT NULL,
    total_tokens BIGINT,
    total_cost_usd DOUBLE,
    error_rate DOUBLE,
    escalation_rate DOUBLE,
    event_timestamp TIMESTAMP(6) NOT NULL
) PARTITIONED BY (hour(window_start));
