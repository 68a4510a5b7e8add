-- Which limits were nearly used up when a request was admitted.

ALTER TABLE responses ADD COLUMN IF NOT EXISTS `near_limits_account` Array(String) CODEC(ZSTD(1)) AFTER `downgraded_from`,
    ADD COLUMN IF NOT EXISTS `near_limits_limit` Array(LowCardinality(String)) CODEC(ZSTD(1)) AFTER `near_limits_account`,
    ADD COLUMN IF NOT EXISTS `near_limits_percent` Array(Int64) CODEC(ZSTD(1)) AFTER `near_limits_limit`;
