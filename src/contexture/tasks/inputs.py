"""How a family draws x, said so that families can be compared.

An oracle that weighs families by how well they explain y is optimal only if they all draw x alike.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardNormal:
    """x ~ N(0, I)."""

    num_features: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """Every coordinate of x ~ U(-reach, reach)."""

    num_features: int
    reach: float


Inputs = StandardNormal | Uniform


@runtime_checkable
class SaysInputs(Protocol):
    """A task that says how it draws x, independently of the function to be learnt."""

    @property
    def inputs(self) -> Inputs:
        """The distribution of x."""
        ...
