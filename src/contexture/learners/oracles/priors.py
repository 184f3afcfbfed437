"""Priors on regression weights that are mixtures of Gaussians, for exact posteriors.

    c ~ weights,  w = m_c + L_c z,  z ~ N(0, I_r)

A point mass has r = 0, a prior on few coordinates a small r: the posterior is tracked in r dimensions.

Legend: components = mixture components of one rank, features = dimension of w, rank = r.
"""

import math
from dataclasses import dataclass
from itertools import combinations, product
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError

MOST_COMPONENTS = 8192


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Components:
    """Mixture components of one rank: centres m, factors L and the logarithm of each component's weight."""

    centres: Float[Tensor, "components features"]
    factors: Float[Tensor, "components features rank"]
    log_weights: Float[Tensor, " components"]


class Prior(Protocol):
    """A prior on w for any number of features."""

    def components(self, num_features: int) -> tuple[Components, ...]:
        """The mixture, grouped by rank; the weights of all groups together sum to one."""
        ...


def _check_count(count: int, what: str, num_features: int) -> None:
    if count > MOST_COMPONENTS:
        raise InputError(
            f"the exact posterior over {what} needs {count} components at {num_features} features; "
            f"at most {MOST_COMPONENTS} are tracked, so use fewer features"
        )


def gaussian(num_features: int, *, share: float = 1.0) -> Components:
    """The single component N(0, I), with a share of the mixture's weight."""
    return Components(
        centres=torch.zeros(1, num_features, dtype=torch.float64),
        factors=torch.eye(num_features, dtype=torch.float64)[None],
        log_weights=torch.full((1,), math.log(share), dtype=torch.float64),
    )


def signs(num_features: int, *, share: float = 1.0) -> Components:
    """Every vector of {-1, 1}^d as a point mass, equally likely."""
    count = 2**num_features
    _check_count(count, "sign vectors", num_features)
    return Components(
        centres=torch.tensor(list(product((-1.0, 1.0), repeat=num_features)), dtype=torch.float64),
        factors=torch.zeros(count, num_features, 0, dtype=torch.float64),
        log_weights=torch.full((count,), math.log(share / count), dtype=torch.float64),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DensePrior:
    """w ~ N(0, I_d)."""

    def components(self, num_features: int) -> tuple[Components, ...]:
        """One component of full rank."""
        return (gaussian(num_features),)


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoCentresPrior:
    """w ~ N(0, I_d) with +centre or -centre, equally likely, added to its first coordinate."""

    centre: float = 3.0

    def components(self, num_features: int) -> tuple[Components, ...]:
        """Two components of full rank."""
        centres = torch.zeros(2, num_features, dtype=torch.float64)
        centres[:, 0] = torch.tensor([self.centre, -self.centre])
        return (
            Components(
                centres=centres,
                factors=torch.eye(num_features, dtype=torch.float64).expand(2, -1, -1),
                log_weights=torch.full((2,), math.log(0.5), dtype=torch.float64),
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseOrSignsPrior:
    """w ~ N(0, I_d), or with probability `sign_share` a uniformly drawn vector of signs."""

    sign_share: float = 0.5

    def components(self, num_features: int) -> tuple[Components, ...]:
        """One component of full rank and 2^d points."""
        return gaussian(num_features, share=1 - self.sign_share), signs(num_features, share=self.sign_share)


@dataclass(frozen=True, kw_only=True, slots=True)
class SparsePrior:
    """`num_nonzero` coordinates, chosen uniformly, are N(0, 1); the others are zero."""

    num_nonzero: int = 3

    def components(self, num_features: int) -> tuple[Components, ...]:
        """One component of rank `num_nonzero` for each support."""
        rank = min(self.num_nonzero, num_features)
        count = math.comb(num_features, rank)
        _check_count(count, "supports", num_features)
        supports = torch.tensor(list(combinations(range(num_features), rank)))
        return (
            Components(
                centres=torch.zeros(count, num_features, dtype=torch.float64),
                factors=torch.eye(num_features, dtype=torch.float64)[supports].transpose(1, 2),
                log_weights=torch.full((count,), -math.log(count), dtype=torch.float64),
            ),
        )
