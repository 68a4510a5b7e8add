CREATE TABLE IF NOT EXISTS `requests`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `request_id` String CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) CODEC(ZSTD(1)),
    `user` String CODEC(ZSTD(1)),
    `api_key_id` String CODEC(ZSTD(1)),
    `project` LowCardinality(String) CODEC(ZSTD(1)),
    `tags` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `task` LowCardinality(String) CODEC(ZSTD(1)),
    `plan` LowCardinality(String) CODEC(ZSTD(1)),
    `created_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `deadline` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    `model` LowCardinality(String) CODEC(ZSTD(1)),
    `message_count` Int32 CODEC(ZSTD(1)),
    `input_chars` Int64 CODEC(ZSTD(1)),
    `parameters_temperature` Nullable(Float64) CODEC(ZSTD(1)),
    `parameters_top_p` Nullable(Float64) CODEC(ZSTD(1)),
    `parameters_max_output_tokens` Nullable(Int64) CODEC(ZSTD(1)),
    `parameters_stop` Array(String) CODEC(ZSTD(1)),
    `parameters_seed` Nullable(Int64) CODEC(ZSTD(1)),
    `parameters_response_format` String CODEC(ZSTD(1)),
    `parameters_reasoning_effort` LowCardinality(String) CODEC(ZSTD(1)),
    `provider_options` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `stream` Bool CODEC(ZSTD(1)),
    `on_unknown_outcome` LowCardinality(String) CODEC(ZSTD(1)),
    `reply_topic` LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`created_at`)
ORDER BY (`tenant`, `created_at`, `request_id`)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `responses`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `request_id` String CODEC(ZSTD(1)),
    `attempt_id` String CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) CODEC(ZSTD(1)),
    `user` String CODEC(ZSTD(1)),
    `api_key_id` String CODEC(ZSTD(1)),
    `project` LowCardinality(String) CODEC(ZSTD(1)),
    `tags` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `task` LowCardinality(String) CODEC(ZSTD(1)),
    `plan` LowCardinality(String) CODEC(ZSTD(1)),
    `outcome` LowCardinality(String) CODEC(ZSTD(1)),
    `output_chars` Int64 CODEC(ZSTD(1)),
    `finish_reason` LowCardinality(String) CODEC(ZSTD(1)),
    `provider` LowCardinality(String) CODEC(ZSTD(1)),
    `model` LowCardinality(String) CODEC(ZSTD(1)),
    `response_model` LowCardinality(String) CODEC(ZSTD(1)),
    `provider_response_id` String CODEC(ZSTD(1)),
    `error_code` LowCardinality(String) CODEC(ZSTD(1)),
    `error_message` String CODEC(ZSTD(1)),
    `error_retryable` Nullable(Bool) CODEC(ZSTD(1)),
    `error_retry_after_ms` Nullable(Int64) CODEC(ZSTD(1)),
    `error_provider_status` Nullable(Int32) CODEC(ZSTD(1)),
    `tokens_input_uncached` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_read` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_5m` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_1h` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_input_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_output_text` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_reasoning` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_output_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `cost_nano_usd` Nullable(Int64) CODEC(ZSTD(1)),
    `cost_status` LowCardinality(String) CODEC(ZSTD(1)),
    `created_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `admitted_at` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    `started_at` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    `first_token_at` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    `finished_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `attempts` Int32 CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`created_at`)
ORDER BY (`tenant`, `created_at`, `request_id`)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `usage`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `attempt_id` String CODEC(ZSTD(1)),
    `request_id` String CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) CODEC(ZSTD(1)),
    `user` String CODEC(ZSTD(1)),
    `api_key_id` String CODEC(ZSTD(1)),
    `project` LowCardinality(String) CODEC(ZSTD(1)),
    `tags` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `task` LowCardinality(String) CODEC(ZSTD(1)),
    `plan` LowCardinality(String) CODEC(ZSTD(1)),
    `provider` LowCardinality(String) CODEC(ZSTD(1)),
    `model` LowCardinality(String) CODEC(ZSTD(1)),
    `response_model` LowCardinality(String) CODEC(ZSTD(1)),
    `provider_response_id` String CODEC(ZSTD(1)),
    `attempt` Int32 CODEC(ZSTD(1)),
    `reason` LowCardinality(String) CODEC(ZSTD(1)),
    `adjusts` String CODEC(ZSTD(1)),
    `status` LowCardinality(String) CODEC(ZSTD(1)),
    `error_code` LowCardinality(String) CODEC(ZSTD(1)),
    `provider_status` Nullable(Int32) CODEC(ZSTD(1)),
    `tokens_input_uncached` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_read` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_5m` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_cache_write_1h` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_input_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_output_text` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_reasoning` Nullable(Int64) CODEC(ZSTD(1)),
    `tokens_output_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_input_uncached` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_cache_read` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_cache_write_5m` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_cache_write_1h` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_input_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_output_text` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_reasoning` Nullable(Int64) CODEC(ZSTD(1)),
    `costs_output_audio` Nullable(Int64) CODEC(ZSTD(1)),
    `cost_nano_usd` Nullable(Int64) CODEC(ZSTD(1)),
    `cost_status` LowCardinality(String) CODEC(ZSTD(1)),
    `reserved_nano_usd` Nullable(Int64) CODEC(ZSTD(1)),
    `price_source` LowCardinality(String) CODEC(ZSTD(1)),
    `price_date` Nullable(Date) CODEC(ZSTD(1)),
    `provider_usage` String CODEC(ZSTD(1)),
    `queue_us` Int64 CODEC(ZSTD(1)),
    `first_token_us` Nullable(Int64) CODEC(ZSTD(1)),
    `provider_us` Nullable(Int64) CODEC(ZSTD(1)),
    `total_us` Nullable(Int64) CODEC(ZSTD(1)),
    `created_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `admitted_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `first_token_at` Nullable(DateTime64(6, 'UTC')) CODEC(Delta(8), ZSTD(1)),
    `finished_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`created_at`)
ORDER BY (`tenant`, `created_at`, `request_id`, `attempt`)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `alerts`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `alert_id` String CODEC(ZSTD(1)),
    `kind` LowCardinality(String) CODEC(ZSTD(1)),
    `severity` LowCardinality(String) CODEC(ZSTD(1)),
    `subject` String CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) CODEC(ZSTD(1)),
    `message` String CODEC(ZSTD(1)),
    `details` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `raised_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`raised_at`)
ORDER BY (`kind`, `raised_at`, `subject`)
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS `dead_letters`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `topic` LowCardinality(String) CODEC(ZSTD(1)),
    `partition` Int32 CODEC(ZSTD(1)),
    `offset` Int64 CODEC(ZSTD(1)),
    `key` String CODEC(ZSTD(1)),
    `value_bytes` Nullable(Int64) CODEC(ZSTD(1)),
    `header_count` Int32 CODEC(ZSTD(1)),
    `timestamp` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `reason` LowCardinality(String) CODEC(ZSTD(1)),
    `message` String CODEC(ZSTD(1)),
    `stage` LowCardinality(String) CODEC(ZSTD(1)),
    `times_seen` Int32 CODEC(ZSTD(1)),
    `failed_at` DateTime64(6, 'UTC') CODEC(Delta(8), ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`failed_at`)
ORDER BY (`topic`, `failed_at`, `partition`, `offset`)
SETTINGS non_replicated_deduplication_window = 10000;
