-- Prompts and answers, apart from the facts and for 30 days: `body` is the JSON of a request's messages or of an answer's output,
-- '' where MILLSTREAM_BODIES is `hash`; `sha256` is of that JSON, in lower-case hexadecimal.
--
-- Days and the time to live follow Kafka's time of the record, which is the same whenever a batch is inserted again and
-- which the broker bounds; `created_at` is whatever the application says. Parts hold one day and are dropped whole.

CREATE TABLE IF NOT EXISTS `bodies`
(
    `kafka_topic` LowCardinality(String) CODEC(ZSTD(1)),
    `kafka_partition` Int32 CODEC(ZSTD(1)),
    `kafka_offset` Int64 CODEC(Delta(8), ZSTD(1)),
    `ce_id` String CODEC(ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `logged_at` DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `request_id` String CODEC(ZSTD(1)),
    `tenant` LowCardinality(String) CODEC(ZSTD(1)),
    `user` String CODEC(ZSTD(1)),
    `kind` LowCardinality(String) CODEC(ZSTD(1)),
    `body` String CODEC(ZSTD(3)),
    `body_bytes` Int64 CODEC(ZSTD(1)),
    `sha256` String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(logged_at)
ORDER BY (tenant, request_id, kind)
TTL toDateTime(logged_at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
