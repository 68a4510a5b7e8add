-- How often the response cache answered, and what the calls had cost whose answers it gave again.

CREATE OR REPLACE VIEW cache_savings SQL SECURITY INVOKER AS
SELECT
    toDate(u.created_at, 'UTC') AS date,
    u.tenant AS tenant,
    u.task AS task,
    u.route AS route,
    u.provider AS provider,
    u.model AS model,
    count() AS hits,
    reinterpret(ifNull(sum(u.saved_nano_usd), 0), 'Decimal64(9)') AS saved_usd,
    countIf(u.saved_nano_usd IS NULL) AS hits_without_cost
FROM usage AS u
WHERE u.reason = 'cached'
GROUP BY date, tenant, task, route, provider, model;
