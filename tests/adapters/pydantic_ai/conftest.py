"""Fixtures: a log on each engine, plain and sealed."""

from tests.adapters.any_log import log, where

__all__ = ["log", "where"]
