-- Which route, prompt and credential a call had, what was considered for a request, and what the response cache saved.

ALTER TABLE requests ADD COLUMN IF NOT EXISTS `tool_count` Int32 CODEC(ZSTD(1)) AFTER `input_chars`,
    ADD COLUMN IF NOT EXISTS `tool_choice` LowCardinality(String) CODEC(ZSTD(1)) AFTER `tool_count`,
    ADD COLUMN IF NOT EXISTS `task_input_chars` Nullable(Int64) CODEC(ZSTD(1)) AFTER `tool_choice`,
    ADD COLUMN IF NOT EXISTS `priority` LowCardinality(String) CODEC(ZSTD(1)) AFTER `reply_topic`,
    ADD COLUMN IF NOT EXISTS `cache` LowCardinality(String) CODEC(ZSTD(1)) AFTER `priority`,
    ADD COLUMN IF NOT EXISTS `max_attempts` Nullable(Int32) CODEC(ZSTD(1)) AFTER `cache`,
    ADD COLUMN IF NOT EXISTS `max_cost_nano_usd` Nullable(Int64) CODEC(ZSTD(1)) AFTER `max_attempts`;

ALTER TABLE responses ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) CODEC(ZSTD(1)) AFTER `attempts`,
    ADD COLUMN IF NOT EXISTS `decisions_model` Array(LowCardinality(String)) CODEC(ZSTD(1)) AFTER `route`,
    ADD COLUMN IF NOT EXISTS `decisions_kept` Array(Bool) CODEC(ZSTD(1)) AFTER `decisions_model`,
    ADD COLUMN IF NOT EXISTS `decisions_reason` Array(String) CODEC(ZSTD(1)) AFTER `decisions_kept`,
    ADD COLUMN IF NOT EXISTS `complexity` Nullable(Float64) CODEC(ZSTD(1)) AFTER `decisions_reason`,
    ADD COLUMN IF NOT EXISTS `prompt_version` LowCardinality(String) CODEC(ZSTD(1)) AFTER `complexity`,
    ADD COLUMN IF NOT EXISTS `cached_from` String CODEC(ZSTD(1)) AFTER `prompt_version`;

ALTER TABLE usage ADD COLUMN IF NOT EXISTS `route` LowCardinality(String) CODEC(ZSTD(1)) AFTER `finished_at`,
    ADD COLUMN IF NOT EXISTS `prompt_version` LowCardinality(String) CODEC(ZSTD(1)) AFTER `route`,
    ADD COLUMN IF NOT EXISTS `credential_id` String CODEC(ZSTD(1)) AFTER `prompt_version`,
    ADD COLUMN IF NOT EXISTS `credential_owner` LowCardinality(String) CODEC(ZSTD(1)) AFTER `credential_id`,
    ADD COLUMN IF NOT EXISTS `saved_nano_usd` Nullable(Int64) CODEC(ZSTD(1)) AFTER `credential_owner`;
