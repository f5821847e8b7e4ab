CREATE TABLE IF NOT EXISTS polaris.matih_analytics.session_analytics (
    window_start TIMESTAMP(6) NOT NULL,
    window_end TIMESTAMP(6) NOT NULL,
    tenant_id STRING NOT NULL,
    total_sessions BIGINT NOT NULL,
    avg_duration_ms DOUBLE,
    avg_turns DOUBLE,
    completion_rate DOUBLE,
    unique_users BIGINT NOT NULL,
    event_timestamp TIMESTAMP(6) NOT NULL
) PARTITIONED BY (hour(window_start));
