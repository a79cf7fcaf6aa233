"""Histories as JSON Lines: the format, export and import."""
