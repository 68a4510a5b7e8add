-- Which model a request would have had, where its user's energy did not reach for it.

ALTER TABLE responses ADD COLUMN IF NOT EXISTS `downgraded_from` LowCardinality(String) CODEC(ZSTD(1)) AFTER `cached_from`;
