"""Means and spreads of numbers that come one after another (Welford, Technometrics 4, 1962).

    n <- n + 1,    m <- m + (x - m) / n,    s <- s + (x - m_old) (x - m_new),    variance = s / n

Columns are counted apart: a value that is missing leaves its column as it was.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

MOST = 10.0
"""How many standard deviations from the mean a number may appear to be."""


@dataclass(slots=True)
class Running:
    """Count, mean and sum of squares of each of several columns, of what was there."""

    count: Float64[np.ndarray, " columns"]
    mean: Float64[np.ndarray, " columns"]
    squares: Float64[np.ndarray, " columns"]

    @classmethod
    def of(cls, columns: int) -> "Running":
        """Nothing seen yet."""
        return cls(*(np.zeros(columns) for _ in range(3)))

    def widen(self, columns: int) -> None:
        """Room for more columns."""
        for name in ("count", "mean", "squares"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old, np.zeros(columns - len(old)))))

    def scaled(
        self, values: Float64[np.ndarray, " columns"], present: Bool[np.ndarray, " columns"]
    ) -> Float64[np.ndarray, " columns"]:
        """Values in standard deviations from the mean of what came before and themselves; zero where absent."""
        count = self.count + present
        change = np.where(present, values - self.mean, 0.0)
        mean = self.mean + change / np.maximum(count, 1)
        variance = (self.squares + change * (values - mean) * present) / np.maximum(count, 1)
        return np.clip(np.where(present, (values - mean) / self._unit(variance), 0.0), -MOST, MOST)

    def add(self, values: Float64[np.ndarray, " columns"], present: Bool[np.ndarray, " columns"]) -> None:
        """Take values in."""
        self.count = self.count + present
        change = np.where(present, values - self.mean, 0.0)
        self.mean = self.mean + change / np.maximum(self.count, 1)
        self.squares = self.squares + change * np.where(present, values - self.mean, 0.0)

    @property
    def unit(self) -> Float64[np.ndarray, " columns"]:
        """The standard deviation so far, one where there is none."""
        return self._unit(self.squares / np.maximum(self.count, 1))

    @staticmethod
    def _unit(variance: Float64[np.ndarray, " columns"]) -> Float64[np.ndarray, " columns"]:
        root = np.sqrt(np.maximum(variance, 0.0))
        return np.where(root > 1e-12, root, 1.0)
