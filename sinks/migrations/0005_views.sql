-- Views under the names and columns that applications' own log tables have; docs/analytics.md explains them. Money is exact: a Decimal
-- with nine digits after the point made of integer nano-USD (seven for cents), null where nobody knows the cost. Times are UTC.
-- Every view runs with the rights of who asks (INVOKER), so that a row policy on the tables confines the views too.

-- Granules without a price adjustment are skipped, so that `provider_calls` finds the few adjustments there are.
ALTER TABLE usage ADD INDEX IF NOT EXISTS adjustments adjusts TYPE minmax GRANULARITY 1;

-- A row a provider call, its cost as later adjustments have left it. An adjustment is no row of its own.
CREATE OR REPLACE VIEW provider_calls SQL SECURITY INVOKER AS
SELECT
    c.attempt_id AS attempt_id,
    c.request_id AS request_id,
    c.tenant AS tenant,
    c.user AS user,
    c.project AS project,
    c.task AS task,
    c.tags AS tags,
    c.provider AS provider,
    c.model AS model,
    c.attempt AS attempt,
    c.status AS status,
    c.error_code AS error_code,
    if(coalesce(c.tokens_input_uncached, c.tokens_cache_read, c.tokens_cache_write_5m, c.tokens_cache_write_1h,
            c.tokens_input_audio) IS NULL, NULL,
        ifNull(c.tokens_input_uncached, 0) + ifNull(c.tokens_cache_read, 0) + ifNull(c.tokens_cache_write_5m, 0)
            + ifNull(c.tokens_cache_write_1h, 0) + ifNull(c.tokens_input_audio, 0)) AS input_tokens,
    if(coalesce(c.tokens_output_text, c.tokens_reasoning, c.tokens_output_audio) IS NULL, NULL,
        ifNull(c.tokens_output_text, 0) + ifNull(c.tokens_reasoning, 0) + ifNull(c.tokens_output_audio, 0)) AS output_tokens,
    if(c.cost_nano_usd IS NULL AND ifNull(a.adjusts, '') = '', NULL,
        ifNull(c.cost_nano_usd, 0) + ifNull(a.difference, 0)) AS cost_nano_usd,
    if(ifNull(a.adjusts, '') = '', c.cost_status, 'priced') AS cost_status,
    c.reserved_nano_usd AS reserved_nano_usd,
    c.queue_us AS queue_us,
    c.first_token_us AS first_token_us,
    c.provider_us AS provider_us,
    c.total_us AS total_us,
    c.created_at AS created_at
FROM usage AS c
LEFT JOIN
(
    SELECT adjusts, sum(cost_nano_usd) AS difference
    FROM usage
    WHERE adjusts != ''
    GROUP BY adjusts
) AS a ON a.adjusts = c.attempt_id
WHERE c.adjusts = '';

CREATE OR REPLACE VIEW ai_provider_usage_logs SQL SECURITY INVOKER AS
SELECT
    user AS user_id,
    provider,
    model,
    task AS task_type,
    input_tokens,
    output_tokens,
    reinterpret(cost_nano_usd, 'Decimal64(7)') AS estimated_cost_usd,
    status,
    provider_us / 1000 AS latency_ms,
    created_at,
    tenant AS workspace_id
FROM provider_calls;

CREATE OR REPLACE VIEW ai_usage_logs SQL SECURITY INVOKER AS
SELECT
    attempt_id AS id,
    user AS user_id,
    tenant AS workspace_id,
    tags['prospect'] AS prospect_id,
    task AS action,
    provider,
    model,
    input_tokens AS tokens_prompt,
    output_tokens AS tokens_completion,
    if(coalesce(input_tokens, output_tokens) IS NULL, NULL, ifNull(input_tokens, 0) + ifNull(output_tokens, 0)) AS tokens_total,
    reinterpret(cost_nano_usd, 'Decimal64(9)') AS cost_usd,
    created_at
FROM provider_calls;

CREATE OR REPLACE VIEW weekly_ai_costs SQL SECURITY INVOKER AS
SELECT toMonday(d.day) AS week, reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS total_cost
FROM usage_by_day AS d
GROUP BY week
ORDER BY week;

CREATE OR REPLACE VIEW usage_tracking SQL SECURITY INVOKER AS
SELECT
    d.user AS user_id,
    d.day AS date,
    sum(d.requests) AS requests_count,
    sum(d.tokens_input_uncached + d.tokens_cache_read + d.tokens_cache_write_5m + d.tokens_cache_write_1h + d.tokens_input_audio
        + d.tokens_output_text + d.tokens_reasoning + d.tokens_output_audio) AS tokens_used,
    reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS cost_usd,
    d.tenant AS workspace_id
FROM usage_by_day AS d
GROUP BY workspace_id, user_id, date;

CREATE OR REPLACE VIEW provider_latency SQL SECURITY INVOKER AS
WITH arrayMap(us -> if(isFinite(us), round(us / 1000, 3), NULL), quantilesTDigestMerge(0.5, 0.95, 0.99)(h.provider_us)) AS took,
    arrayMap(us -> if(isFinite(us), round(us / 1000, 3), NULL), quantilesTDigestMerge(0.5, 0.95, 0.99)(h.first_token_us)) AS first_token,
    arrayMap(us -> if(isFinite(us), round(us / 1000, 3), NULL), quantilesTDigestMerge(0.5, 0.95, 0.99)(h.queue_us)) AS queued
SELECT
    h.hour AS hour,
    h.provider AS provider,
    sum(h.calls) AS calls,
    sumIf(h.calls, h.status != 'succeeded') AS errors,
    errors / calls AS error_rate,
    took[1] AS p50_ms,
    took[2] AS p95_ms,
    took[3] AS p99_ms,
    first_token[1] AS first_token_p50_ms,
    first_token[2] AS first_token_p95_ms,
    queued[1] AS queue_p50_ms,
    queued[2] AS queue_p95_ms
FROM latency_by_hour AS h
GROUP BY hour, provider;

CREATE OR REPLACE VIEW cost_by_model SQL SECURITY INVOKER AS
SELECT
    d.day AS date,
    d.provider AS provider,
    d.model AS model,
    sum(d.calls) AS calls,
    sum(d.tokens_input_uncached + d.tokens_cache_read + d.tokens_cache_write_5m + d.tokens_cache_write_1h
        + d.tokens_input_audio) AS input_tokens,
    sum(d.tokens_output_text + d.tokens_reasoning + d.tokens_output_audio) AS output_tokens,
    reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS cost_usd,
    sum(d.calls_without_cost) AS calls_without_cost
FROM usage_by_day AS d
GROUP BY date, provider, model;

CREATE OR REPLACE VIEW cost_by_tenant SQL SECURITY INVOKER AS
SELECT
    d.day AS date,
    d.tenant AS tenant,
    d.project AS project,
    sum(d.requests) AS requests,
    sum(d.calls) AS calls,
    reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS cost_usd,
    sum(d.calls_without_cost) AS calls_without_cost
FROM usage_by_day AS d
GROUP BY date, tenant, project;

CREATE OR REPLACE VIEW top_users SQL SECURITY INVOKER AS
SELECT
    d.tenant AS tenant,
    d.user AS user_id,
    sum(d.requests) AS requests,
    sum(d.tokens_input_uncached + d.tokens_cache_read + d.tokens_cache_write_5m + d.tokens_cache_write_1h + d.tokens_input_audio
        + d.tokens_output_text + d.tokens_reasoning + d.tokens_output_audio) AS tokens,
    reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS cost_usd
FROM usage_by_day AS d
WHERE d.day > toDate(now('UTC')) - 30
GROUP BY tenant, user_id
ORDER BY cost_usd DESC;

CREATE OR REPLACE VIEW error_rate_by_task SQL SECURITY INVOKER AS
SELECT
    d.day AS date,
    d.tenant AS tenant,
    d.task AS task,
    sum(d.calls) AS calls,
    sumIf(d.calls, d.status != 'succeeded') AS errors,
    errors / calls AS error_rate
FROM usage_by_day AS d
GROUP BY date, tenant, task
HAVING calls > 0;

CREATE OR REPLACE VIEW spend_today SQL SECURITY INVOKER AS
SELECT
    d.tenant AS tenant,
    sum(d.calls) AS calls,
    reinterpret(sum(d.cost_nano_usd), 'Decimal64(9)') AS cost_usd,
    sum(d.calls_without_cost) AS calls_without_cost
FROM usage_by_day AS d
WHERE d.day = toDate(now('UTC'))
GROUP BY tenant;

-- Requests of the last seven days; a rollup knows no single request, so this one reads the answers.
CREATE OR REPLACE VIEW slowest_requests SQL SECURITY INVOKER AS
SELECT
    request_id,
    tenant,
    user AS user_id,
    task,
    provider,
    model,
    outcome,
    error_code,
    attempts,
    (toUnixTimestamp64Micro(finished_at) - toUnixTimestamp64Micro(r.created_at)) / 1000 AS total_ms,
    (toUnixTimestamp64Micro(admitted_at) - toUnixTimestamp64Micro(r.created_at)) / 1000 AS admitted_after_ms,
    reinterpret(cost_nano_usd, 'Decimal64(9)') AS cost_usd,
    created_at
FROM responses AS r
WHERE r.created_at >= now64(6, 'UTC') - INTERVAL 7 DAY
ORDER BY total_ms DESC;

CREATE OR REPLACE VIEW unpriced_usage SQL SECURITY INVOKER AS
SELECT
    tenant,
    provider,
    model,
    cost_status,
    count() AS calls,
    sum(c.input_tokens) AS input_tokens,
    sum(c.output_tokens) AS output_tokens,
    reinterpret(sum(c.reserved_nano_usd), 'Decimal64(9)') AS at_most_usd,
    min(c.created_at) AS first_at,
    max(c.created_at) AS last_at
FROM provider_calls AS c
WHERE cost_nano_usd IS NULL
GROUP BY tenant, provider, model, cost_status;
