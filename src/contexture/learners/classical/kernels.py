r"""The Gaussian (radial basis function) kernel, k(x, z) = exp(-|x - z|^2 / (2 length^2)), on a grid of length scales.

A grid point's length is a multiple of sqrt(features): |x - z| grows with it where columns have unit scale.
Shapes: x [batch, time, features]; kernels [grid, batch, rows, time].
"""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError


@dataclass(frozen=True, slots=True)
class KernelGrid:
    """Every pair of a length scale (in units of sqrt(features)) and a noise-to-signal ratio, in this order.

    InputError unless all are positive.
    """

    lengths: tuple[float, ...] = (1.0, 2.0, 4.0, 0.5, 0.25)
    noises: tuple[float, ...] = (1.0, 0.3, 0.1, 0.01, 0.001)

    def __post_init__(self) -> None:
        if not self.lengths or not self.noises or min(self.lengths + self.noises) <= 0:
            raise InputError(f"a kernel needs positive lengths and noises, but they are {self.lengths}, {self.noises}")

    def __len__(self) -> int:
        return len(self.lengths) * len(self.noises)

    def kernel(
        self, rows: Float[Tensor, "batch rows features"], x: Float[Tensor, "batch time features"]
    ) -> Float[Tensor, "grid batch rows time"]:
        """The covariance of the function between rows and x, without noise."""
        apart = torch.cdist(rows, x, compute_mode="donot_use_mm_for_euclid_dist").square()
        lengths = x.new_tensor([length for length, _ in self._points()])[:, None, None, None]
        return (apart / (-2 * max(1, x.shape[-1]) * lengths.square())).exp()

    def noise(self, like: Tensor) -> Float[Tensor, "grid 1 1"]:
        """The noise variance of each grid point, in units of the function's variance."""
        return like.new_tensor([noise for _, noise in self._points()])[:, None, None]

    def _points(self) -> list[tuple[float, float]]:
        return list(itertools.product(self.lengths, self.noises))


def plus_diagonal(kernel: Float[Tensor, "*many time time"], noise: Float[Tensor, "*#many 1"]) -> Tensor:
    """The kernel with the noise on its diagonal."""
    return kernel + torch.diag_embed(noise.expand(kernel.shape[:-1]))
