r"""Gaussian-process classification by Laplace's approximation, for every prefix and one class against the rest.

    a = argmax_a  sum_s log sigma(z_s f_s) - a'f / 2,  f = K a,      z in {-1, 1}
    log evidence = sum_s log sigma(z_s f_s) - a'f / 2 - log|B| / 2,  B = I + W^1/2 K W^1/2,  W = sigma(f) sigma(-f)
    p(class | x*) = sigma(m / sqrt(1 + pi v / 8)),  m = k*'a,  v = k** - k*' W^1/2 B^-1 W^1/2 k*

An example that a prefix does not show has W = 0 and a = 0: its f then is its prediction. Newton's method from f = 0.
Rasmussen and Williams (2006), algorithms 3.1 and 3.2; MacKay (1992) for the average over f.
Shapes: K [grid, batch, 1, time, time]; z [batch, 1, time]; shown [prefixes, time]; f, a [grid, batch, prefixes, time].
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.learners.classical.kernels import KernelGrid
from contexture.learners.classical.prefix_gaussian import chosen, first_best
from contexture.learners.inputs import blocks

NEWTON_STEPS = 50
LAST_STEP = 1e-9
"""A step this small leaves an error of its square."""


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """The mode of one class against the rest, and its curvature, for every grid point, episode and prefix."""

    function: Float[Tensor, "grid batch prefixes time"]
    weights: Float[Tensor, "grid batch prefixes time"]
    root: Float[Tensor, "grid batch prefixes time"]
    """W^1/2."""
    factor: Float[Tensor, "grid batch prefixes time time"]
    """The lower Cholesky factor of B."""
    log_evidence: Float[Tensor, "grid batch prefixes"]

    @classmethod
    def of(
        cls,
        kernel: Float[Tensor, "grid batch 1 time time"],
        signs: Float[Tensor, "batch 1 time"],
        shown: Bool[Tensor, "prefixes time"],
    ) -> "Mode":
        """Find the mode by Newton's method."""
        function = kernel.new_zeros(*kernel.shape[:2], *shown.shape)
        weights, identity = torch.zeros_like(function), torch.eye(kernel.shape[-1]).to(kernel)
        for _ in range(NEWTON_STEPS):
            root = _curvature(function, shown).sqrt()
            factor = torch.linalg.cholesky(identity + root[..., None] * kernel * root[..., None, :])
            pull = root.square() * function + shown * signs * torch.sigmoid(-signs * function)
            pulled = root[..., None] * (kernel @ pull[..., None])
            before, weights = weights, pull - root * torch.cholesky_solve(pulled, factor)[..., 0]
            function = (kernel @ weights[..., None])[..., 0]
            if not before.numel() or bool((weights - before).abs().amax() < LAST_STEP):
                break
        root = _curvature(function, shown).sqrt()
        factor = torch.linalg.cholesky(identity + root[..., None] * kernel * root[..., None, :])
        fit = (shown * torch.nn.functional.logsigmoid(signs * function)).sum(-1)
        halved = 0.5 * (weights * function).sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return cls(function, weights, root, factor, fit - halved)

    def explained(
        self, shared: Float[Tensor, "grid batch #prefixes time queries"]
    ) -> Float[Tensor, "grid batch prefixes queries"]:
        """k*' W^1/2 B^-1 W^1/2 k*: by how much the examples lower the variance of f at the queries."""
        whitened = torch.linalg.solve_triangular(self.factor, self.root[..., None] * shared, upper=False)
        squares: Tensor = whitened.square()
        return squares.sum(-2)


def prefix_class_probabilities(
    x: Float[Tensor, "batch time features"], y: Int[Tensor, "batch time"], grid: KernelGrid, num_classes: int
) -> Float[Tensor, "batch time classes"]:
    """The probabilities at every t from the examples before it; the grid's noises are the variances of f."""
    time = x.shape[1]
    shown = torch.ones(time, time, dtype=torch.bool, device=x.device).tril(-1)
    chances = x.new_empty(x.shape[0], time, num_classes)
    for block in blocks(x.shape[0], len(grid) * time**3):
        kernel = _kernel(grid, x[block], x[block])
        for label in _labels(num_classes):
            mode = Mode.of(kernel, _signs(y[block], label), shown)
            explained = mode.explained(kernel).diagonal(dim1=-2, dim2=-1)
            spread = kernel[:, :, 0].diagonal(dim1=-2, dim2=-1) - explained
            mean = mode.function.diagonal(dim1=-2, dim2=-1)
            chances[block, :, label] = chosen(_average(mean, spread), first_best(mode.log_evidence))
    return _normalised(chances)


def class_probabilities(
    x: Float[Tensor, "batch time features"],
    y: Int[Tensor, "batch time"],
    queries: Float[Tensor, "batch queries features"],
    grid: KernelGrid,
    num_classes: int,
) -> Float[Tensor, "batch queries classes"]:
    """The probabilities of every query after all of the examples; the grid's noises are the variances of f."""
    shown = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
    chances = x.new_empty(x.shape[0], queries.shape[1], num_classes)
    for block in blocks(x.shape[0], len(grid) * x.shape[1] * (x.shape[1] + queries.shape[1])):
        kernel, shared = _kernel(grid, x[block], x[block]), _kernel(grid, x[block], queries[block])
        for label in _labels(num_classes):
            mode = Mode.of(kernel, _signs(y[block], label), shown)
            spread = grid.noise(x) - mode.explained(shared)[:, :, 0]
            mean = torch.einsum("gbt,gbtq->gbq", mode.weights[:, :, 0], shared[:, :, 0])
            index = first_best(mode.log_evidence).expand(mean.shape[1:])
            chances[block, :, label] = chosen(_average(mean, spread), index)
    return _normalised(chances)


def _kernel(grid: KernelGrid, rows: Tensor, x: Tensor) -> Float[Tensor, "grid batch 1 rows time"]:
    return (grid.noise(x)[..., None] * grid.kernel(rows, x))[:, :, None]


def _signs(y: Int[Tensor, "batch time"], label: int) -> Float[Tensor, "batch 1 time"]:
    return (2.0 * (y == label) - 1.0).to(torch.float64)[:, None]


def _curvature(function: Tensor, shown: Tensor) -> Tensor:
    return shown * torch.sigmoid(function) * torch.sigmoid(-function)


def _average(mean: Tensor, spread: Tensor) -> Tensor:
    return torch.sigmoid(mean / (1 + math.pi / 8 * spread.clamp_min(0)).sqrt())


def _labels(num_classes: int) -> range:
    """The classes that are set against the rest; of two, one says what the other is."""
    return range(1, 2) if num_classes == 2 else range(num_classes)


def _normalised(chances: Float[Tensor, "batch queries classes"]) -> Float[Tensor, "batch queries classes"]:
    if chances.shape[-1] == 2:
        chances[..., 0] = 1 - chances[..., 1]
    return chances / chances.sum(-1, keepdim=True)
