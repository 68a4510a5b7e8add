-- Which version of its task's prompt a request asked for.

ALTER TABLE requests ADD COLUMN IF NOT EXISTS `prompt_version` LowCardinality(String) CODEC(ZSTD(1)) AFTER `task_input_chars`;
