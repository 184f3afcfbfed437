"""A prior over synthetic tables."""

from contexture.tasks.tabular_prior.prior import TableBatch, TabularPrior

__all__ = ["TableBatch", "TabularPrior"]
