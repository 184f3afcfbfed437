"""Holding two tensors against each other, and saying where they first part."""

import torch
from torch import Tensor

from contexture.testing.errors import LawError


def agree(law: str, what: str, got: Tensor, expected: Tensor, *, tolerance: float, scale: float | None = None) -> None:
    """Raise LawError unless got = expected up to a relative root-mean-square error of `tolerance`.

    The error is relative to the size of `expected`, or to `scale` where that is larger (for gradients that vanish).
    """
    if got.shape != expected.shape:
        raise LawError(law, f"{what} has the shape {tuple(got.shape)}, not {tuple(expected.shape)}")
    if got.numel() == 0:
        return
    difference = (got.detach().to(torch.float64) - expected.detach().to(torch.float64)).abs()
    size = max(rms(expected), scale or 0.0)
    error = rms(difference)
    if error <= tolerance * size:
        return
    wrong = ~(difference <= tolerance * size)
    first = tuple(int(index) for index in wrong.nonzero()[0])
    raise LawError(law, f"{what} is off by {error / max(size, 1e-300):.1e}, {tolerance:.0e} is allowed", position=first)


def rms(x: Tensor) -> float:
    """The root mean square of all entries."""
    return float(x.detach().to(torch.float64).square().mean().sqrt()) if x.numel() else 0.0
