-- How much had come of a streamed answer when its call ended, which is all that is known of one that broke.

ALTER TABLE usage ADD COLUMN IF NOT EXISTS `received_chars` Nullable(Int64) CODEC(ZSTD(1)) AFTER `provider_usage`;
