-- Granules in which every call has a cost are skipped, so that the few without one are found among many.
ALTER TABLE usage ADD INDEX IF NOT EXISTS cost_statuses cost_status TYPE set(8) GRANULARITY 1;

ALTER TABLE usage MATERIALIZE INDEX cost_statuses;

-- Calls whose cost nobody knows and no later adjustment has told.
CREATE OR REPLACE VIEW unpriced_usage SQL SECURITY INVOKER AS
WITH
    if(coalesce(c.tokens_input_uncached, c.tokens_cache_read, c.tokens_cache_write_5m, c.tokens_cache_write_1h,
            c.tokens_input_audio) IS NULL, NULL,
        ifNull(c.tokens_input_uncached, 0) + ifNull(c.tokens_cache_read, 0) + ifNull(c.tokens_cache_write_5m, 0)
            + ifNull(c.tokens_cache_write_1h, 0) + ifNull(c.tokens_input_audio, 0)) AS input,
    if(coalesce(c.tokens_output_text, c.tokens_reasoning, c.tokens_output_audio) IS NULL, NULL,
        ifNull(c.tokens_output_text, 0) + ifNull(c.tokens_reasoning, 0) + ifNull(c.tokens_output_audio, 0)) AS output
SELECT
    c.tenant AS tenant,
    c.provider AS provider,
    c.model AS model,
    c.cost_status AS cost_status,
    count() AS calls,
    sum(input) AS input_tokens,
    sum(output) AS output_tokens,
    reinterpret(sum(c.reserved_nano_usd), 'Decimal64(9)') AS at_most_usd,
    min(c.created_at) AS first_at,
    max(c.created_at) AS last_at
FROM usage AS c
WHERE c.cost_status IN ('unpriced', 'unknown')
    AND c.cost_nano_usd IS NULL
    AND c.adjusts = ''
    AND c.attempt_id NOT IN (SELECT adjusts FROM usage WHERE adjusts != '')
GROUP BY tenant, provider, model, cost_status;
