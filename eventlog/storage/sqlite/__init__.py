"""The SQLite engine: the only place that knows SQLite."""
