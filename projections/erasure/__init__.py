"""Erasure: scopes and the eraser."""
