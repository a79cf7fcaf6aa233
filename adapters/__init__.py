"""Who talks to the log: the session for the OpenAI Agents SDK, and the command line."""

from adapters.openai_agents import AdvancedSQLiteSession, EventLogSession

__all__ = ["AdvancedSQLiteSession", "EventLogSession"]
