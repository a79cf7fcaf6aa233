"""The fixtures that the pinned tests share with those of the promises."""

from tests.projections.conftest import given

__all__ = ["given"]
