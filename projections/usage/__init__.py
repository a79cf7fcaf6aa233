"""Tokens and cost: the builder, and what readers ask."""
