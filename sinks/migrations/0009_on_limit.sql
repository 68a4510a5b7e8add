-- Whether a request waits while a limit has no room for it.

ALTER TABLE requests ADD COLUMN IF NOT EXISTS `on_limit` LowCardinality(String) CODEC(ZSTD(1)) AFTER `max_cost_nano_usd`;
