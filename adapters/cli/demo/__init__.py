"""The demo: a conversation on an event log, from ``Runner.run`` to a replay."""
