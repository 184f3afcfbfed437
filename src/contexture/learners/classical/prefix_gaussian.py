r"""Gaussian prediction of every prefix from one Cholesky factor: the factor of a leading block is the leading block.

    K = L L',  e = L^-1 y:   y_t | y_1 .. y_{t-1}  ~  N(sum_{s<t} L_ts e_s,  scale L_tt^2)

K is the covariance of y (noise on the diagonal) up to its scale, whose prior is an inverse gamma worth a hundredth of a
residual of size one (c = 0.01); integrating it out leaves the log evidence of n examples, up to a constant of n,

    -(n + c)/2 log(c + sum_{s<=n} e_s^2) - sum_{s<=n} log L_ss

Left-out residuals of example i within the first n are a_i / c_i with a = K_n^-1 y, c = diag K_n^-1, and both are sums
over rows of L^-1, so that running sums give them for every prefix. Rasmussen and Williams (2006), sections 2.2, 5.4.
Shapes: K [.., time, time], y [.., time]; prefixes 0 to time inclusive on the last axis of what is per prefix.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PRIOR = 0.01
"""c: how many residuals of size one the prior of the scale is worth."""
CLOSE = 1e-9
"""Scores this close, relative to the best, count as equal to it."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefixGaussian:
    """The factor L and the innovations e of a batch of episodes.

    `sound` says up to which row the covariance is positive definite in floating point; later prefixes have no evidence.
    """

    factor: Float[Tensor, "*many time time"]
    innovations: Float[Tensor, "*many time"]
    sound: Bool[Tensor, "*many time"]

    @classmethod
    def of(cls, covariance: Float[Tensor, "*many time time"], y: Float[Tensor, "*#many time"]) -> "PrefixGaussian":
        """Factor a covariance and whiten y by it."""
        factor, failed = torch.linalg.cholesky_ex(covariance)
        rows = torch.arange(covariance.shape[-1], device=covariance.device)
        sound = (failed[..., None] == 0) | (rows < failed[..., None] - 1)
        factor = torch.where(sound[..., None], factor, torch.eye(len(rows)).to(factor))
        targets = y.expand(covariance.shape[:-1])[..., None]
        return cls(factor, torch.linalg.solve_triangular(factor, targets, upper=False)[..., 0], sound)

    @property
    def mean(self) -> Float[Tensor, "*many time"]:
        """The mean of y_t from the targets before t."""
        return (self.factor.tril(-1) @ self.innovations[..., None])[..., 0]

    @property
    def spread(self) -> Float[Tensor, "*many time"]:
        """The variance of y_t given the targets before t, up to the scale."""
        return self.factor.diagonal(dim1=-2, dim2=-1).square()

    @property
    def log_evidence(self) -> Float[Tensor, "*many prefixes"]:
        """The log evidence of every prefix, up to a constant of its length."""
        squares = _running(self.innovations.square())
        counts = torch.arange(squares.shape[-1], dtype=squares.dtype, device=squares.device)
        evidence = log_evidence(squares, _running(self.spread.log()), counts)
        return evidence.masked_fill(~self._prefixes, -torch.inf)

    @property
    def left_out_error(self) -> Float[Tensor, "*many prefixes"]:
        """The sum of squared left-out residuals of every prefix."""
        identity = torch.eye(self.factor.shape[-1], dtype=self.factor.dtype, device=self.factor.device)
        inverse = torch.linalg.solve_triangular(self.factor, identity, upper=False)
        weights = (inverse * self.innovations[..., None]).cumsum(-2)
        precision = inverse.square().cumsum(-2)
        residuals = torch.where(precision > 0, weights / precision, 0)
        errors = residuals.square().sum(-1)
        errors = torch.nn.functional.pad(errors, (1, 0))
        return errors.masked_fill(~self._prefixes, torch.inf)

    @property
    def _prefixes(self) -> Bool[Tensor, "*many prefixes"]:
        return torch.nn.functional.pad(self.sound, (1, 0), value=True)


def log_evidence(squares: Tensor, log_determinant: Tensor, counts: Tensor | int) -> Tensor:
    """The log evidence of `counts` examples from y' K^-1 y and log|K|, up to a constant of their number."""
    return -0.5 * ((counts + PRIOR) * (PRIOR + squares).log() + log_determinant)


def scale(squares: Tensor, counts: Tensor | int) -> Tensor:
    """The scale of the covariance after `counts` examples with y' K^-1 y = squares.

    The predictive distribution is Student's t with as many degrees of freedom as examples, and this its variance's
    share; below three examples it has none, and the mean square with one residual of size one stands in.
    """
    counts = torch.as_tensor(counts)
    return torch.where(counts > 2, (PRIOR + squares) / (counts - 2).clamp_min(1), (1 + squares) / (1 + counts))


def prefix_scale(innovations: Float[Tensor, "*many time"]) -> Float[Tensor, "*many prefixes"]:
    """The scale of the covariance after every prefix."""
    return scale(_running(innovations.square()), torch.arange(innovations.shape[-1] + 1, device=innovations.device))


def first_best(scores: Float[Tensor, "grid *many"]) -> Int[Tensor, "*many"]:
    """The first grid point whose score is the highest up to rounding, so that ties are settled by the grid's order."""
    best = scores.amax(0)
    return (scores >= best - CLOSE * (1 + best.abs())).to(torch.int64).argmax(0)


def chosen(values: Float[Tensor, "grid *many"], index: Int[Tensor, "*many"]) -> Float[Tensor, "*many"]:
    """The value of the grid point that each entry chose."""
    return values.gather(0, index[None])[0]


def _running(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values.cumsum(-1), (1, 0))
