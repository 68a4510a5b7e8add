-- Which requests were admitted while the ledger was away, unchecked against limits and energy.

ALTER TABLE responses ADD COLUMN IF NOT EXISTS `unchecked` Bool CODEC(ZSTD(1)) AFTER `near_limits_percent`;

ALTER TABLE usage ADD COLUMN IF NOT EXISTS `unchecked` Bool CODEC(ZSTD(1)) AFTER `saved_nano_usd`;
