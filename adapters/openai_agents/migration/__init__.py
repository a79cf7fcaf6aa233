"""Histories in the tables of the SDK's own session classes."""
