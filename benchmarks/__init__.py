"""Measurements beside the SDK's class and beside plain sqlite3: `python -m benchmarks`."""
