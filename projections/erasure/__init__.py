"""Erasure: what is to be erased, and the erasing of it."""
