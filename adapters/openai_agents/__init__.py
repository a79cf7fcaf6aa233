"""The session for the OpenAI Agents SDK: the only folder that imports ``agents``."""
