-- Usage per minute and dimension. The target has a deduplication window of its own, so that a repeated insert into
-- `usage` neither counts twice here nor leaves out what a failed one did not reach.
-- t-digest states merge in any order and take a few hundred bytes:
-- https://clickhouse.com/docs/sql-reference/aggregate-functions/reference/quantiletdigest

CREATE TABLE IF NOT EXISTS usage_by_minute
(
    `minute` DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    `tenant` LowCardinality(String),
    `user` String CODEC(ZSTD(1)),
    `project` LowCardinality(String),
    `task` LowCardinality(String),
    `provider` LowCardinality(String),
    `model` LowCardinality(String),
    `status` LowCardinality(String),
    `calls` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `calls_without_cost` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `tokens_input_uncached` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_cache_read` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_5m` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_1h` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_input_audio` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_output_text` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_reasoning` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `tokens_output_audio` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `cost_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(ZSTD(1)),
    `provider_us` AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Nullable(Int64)) CODEC(ZSTD(1)),
    `total_us` AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Nullable(Int64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant, minute, project, task, provider, model, status, user)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS usage_by_minute_view TO usage_by_minute AS
SELECT
    toStartOfMinute(toDateTime(created_at, 'UTC')) AS minute,
    tenant,
    user,
    project,
    task,
    provider,
    model,
    status,
    countIf(adjusts = '') AS calls,
    countIf(usage.cost_nano_usd IS NULL) AS calls_without_cost,
    sum(ifNull(usage.tokens_input_uncached, 0)) AS tokens_input_uncached,
    sum(ifNull(usage.tokens_cache_read, 0)) AS tokens_cache_read,
    sum(ifNull(usage.tokens_cache_write_5m, 0)) AS tokens_cache_write_5m,
    sum(ifNull(usage.tokens_cache_write_1h, 0)) AS tokens_cache_write_1h,
    sum(ifNull(usage.tokens_input_audio, 0)) AS tokens_input_audio,
    sum(ifNull(usage.tokens_output_text, 0)) AS tokens_output_text,
    sum(ifNull(usage.tokens_reasoning, 0)) AS tokens_reasoning,
    sum(ifNull(usage.tokens_output_audio, 0)) AS tokens_output_audio,
    sum(ifNull(usage.cost_nano_usd, 0)) AS cost_nano_usd,
    quantilesTDigestState(0.5, 0.95, 0.99)(usage.provider_us) AS provider_us,
    quantilesTDigestState(0.5, 0.95, 0.99)(usage.total_us) AS total_us
FROM usage
GROUP BY minute, tenant, user, project, task, provider, model, status;
