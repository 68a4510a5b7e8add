"""The store: events become rows of ClickHouse, each exactly once."""
