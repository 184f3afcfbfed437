"""Temperatures for a table transformer's logits (Guo et al. 2017, arXiv:1706.04599): p = softmax(logits / T).

    classes    one T
    numbers    T(n) = min(1, (rows / n)^power) after n rows: sharper where a context is longer than most in training

Chosen on the development tables by benchmarks/tabular_calibration.py, and saved beside the weights that they belong to.
"""

import math
from dataclasses import dataclass

from contexture.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The temperatures of one set of weights; the defaults leave the logits as they are.

    >>> Calibration(power=0.5).numbers(num_rows=400)
    0.5
    """

    classes: float = 1.0
    rows: int = 100
    power: float = 0.0

    def __post_init__(self) -> None:
        if self.classes <= 0 or self.rows < 1 or self.power < 0:
            raise InputError("a calibration takes a temperature above zero, at least one row and a power of at least 0")

    def numbers(self, num_rows: int) -> float:
        """The temperature of the bins' logits after `num_rows` rows."""
        return min(1.0, math.pow(self.rows / max(1, num_rows), self.power))
